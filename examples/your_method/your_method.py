"""A method of your own, outside the tree: stochastic weight averaging after the base training (Izmailov et al. 2018).

The method consists of this file and `configs/method/your_method.yaml`:

    PYTHONPATH=examples/your_method energy-benchmark run --config-dir examples/your_method/configs method=your_method

Planning imports this file, and planning must not import torch, so torch is imported inside the functions that use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from benchmark.plan.stage import Bench, Network, Output, Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Params, Task
from methods.baseline import base_training, check_builds

if TYPE_CHECKING:
    from torch import nn


class Epoch(Params):
    """Parameters of `your_method:train_on`: one epoch by the recipe of `task`, after `first_epoch` epochs."""

    task: Task
    first_epoch: int


class Averaging(Epoch):
    """Parameters of `your_method:average`; `first_epoch` says which random draws of images the batch norms see."""


class WeightAveraging(Config):
    """Train as usual, train `epochs` more epochs at a constant rate, and deploy the mean of the networks after each."""

    epochs: int = Field(default=5, ge=2)
    lr: float = Field(default=0.02, gt=0)

    def plan(self, task: Task) -> Plan:
        """The base training that every method shares, one stage per epoch, and their mean, each with its own energy."""
        base = base_training(task)
        plain: Task = base.params.task  # type: ignore[attr-defined] # a stage's params are of any kind
        recipe = plain.recipe.model_copy(update={"epochs": 1, "lr": self.lr, "schedule": "constant"})
        again = plain.model_copy(update={"recipe": recipe})
        chain = [base]
        for number in range(self.epochs):
            params = Epoch(task=again, first_epoch=plain.recipe.epochs + number)
            chain.append(Stage("your_method:train_on", params, {"trained": chain[-1]}))
        visited = {f"network_{number:03}": stage for number, stage in enumerate(chain[1:])}
        params = Averaging(task=plain, first_epoch=plain.recipe.epochs + self.epochs)
        mean = Stage("your_method:average", params, visited)
        steps = ((Phase.BASE, base), *((Phase.RETRAIN, stage) for stage in (*chain[1:], mean)))
        return Plan(steps=steps, network=mean, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where the model cannot be built for the task's classes."""
        check_builds(task)


def train_on(bench: Bench, params: Epoch, trained: Output) -> Output:
    """Train a network for one more epoch and return it."""
    from benchmark.vision.data import loaders
    from benchmark.vision.training import fit, loss_of, seed_everything

    task = params.task
    seed_everything(task.seed, params.first_epoch)
    model = _load(trained).to(bench.device)
    with bench.paused():  # reading files is not training
        batches = loaders(task, bench.data_dir, bench.device, params.first_epoch)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    return _output(bench, model, task, {"acc_before_pct": trained.values["acc_pct"], **history.values()})


def average(bench: Bench, params: Averaging, **visited: Output) -> Output:
    """The mean of some networks' weights; its batch norms have then seen the training images once."""
    import torch
    from torch.optim.swa_utils import update_bn

    from benchmark.vision.data import loaders
    from benchmark.vision.evaluation import accuracy
    from benchmark.vision.training import seed_everything, set_precision

    task, networks = params.task, [_load(output) for output in visited.values()]
    seed_everything(task.seed, params.first_epoch)
    set_precision(task.train_precision)
    model = networks[0]
    with torch.no_grad():
        for parameter, *others in zip(*(network.parameters() for network in networks), strict=True):
            parameter.copy_(torch.stack([parameter, *others]).double().mean(0))
    model.to(bench.device)
    with bench.paused():
        batches = loaders(task, bench.data_dir, bench.device, params.first_epoch)
    update_bn(((images.to(bench.device),) for images, _, _ in batches.train.epoch(0)), model)
    with bench.paused():
        best = max(output.values["acc_pct"] for output in visited.values())
        values = {"acc_pct": accuracy(model, batches.test), "acc_best_of_averaged_pct": best}
    return _output(bench, model, task, values)


def _load(given: Output) -> nn.Module:
    from benchmark.vision.network import load

    assert isinstance(given.network, Network), "this stage needs a network"
    return load(given.network)


def _output(bench: Bench, model: nn.Module, task: Task, values: dict[str, Any]) -> Output:
    from benchmark.vision.macs import count
    from benchmark.vision.network import freeze

    with bench.paused():  # the suite, not the method, pays for proving and counting a network
        parameters, macs = count(model)
        network = freeze(model, task.model, task.data.classes, task.recipe)
    return Output(network=network, values={**values, "params": parameters, "macs": macs})
