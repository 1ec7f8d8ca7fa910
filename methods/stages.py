"""What the stages of several families share: how they begin with a given network, how they end, and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from benchmark.plan.stage import Bench, Network, Output
from benchmark.plan.task import Task
from benchmark.vision.data import Loaders, loaders
from benchmark.vision.macs import count
from benchmark.vision.network import freeze_like, load
from benchmark.vision.training import fit, loss_of, seed_everything, set_precision
from methods.way import FineTuning


def finetune(bench: Bench, params: FineTuning, given: Output) -> Output:
    """Train a network further, with a new optimiser; returns the network of the last epoch."""
    task = params.task
    model, batches = ready(bench, task, given, params.first_epoch)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    values = {"acc_before_pct": given.values["acc_pct"], **history.values()}
    return handed_on(bench, model, network_of(given), values, {"history": vars(history)})


def ready(bench: Bench, task: Task, given: Output, first_epoch: int = 0) -> tuple[nn.Module, Loaders]:
    """The given network on the device, and the task's batches, whose draws continue after `first_epoch` epochs."""
    seed_everything(task.seed, first_epoch)
    set_precision(task.train_precision)  # process-wide: without this, a stage would depend on what ran before
    model = load(network_of(given)).to(bench.device)
    with bench.paused():
        return model, loaders(task, bench.data_dir, bench.device, first_epoch)


def network_of(given: Output) -> Network:
    """The network of an earlier stage."""
    assert isinstance(given.network, Network), "this stage continues with a network and needs one"
    return given.network


def handed_on(
    bench: Bench, model: nn.Module, like: Network, values: Mapping[str, float], details: Mapping[str, object]
) -> Output:
    """The output of a stage: the network, built like `like`, proved and counted off the meter, with its numbers."""
    with bench.paused():
        network = freeze_like(model, like)
        parameters, macs = count(model)
    return Output(network=network, values={**values, "params": parameters, "macs": macs}, details=details)
