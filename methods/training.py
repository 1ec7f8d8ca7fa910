"""The stage function of plain training."""

from __future__ import annotations

from benchmark.plan.stage import Bench, Output
from benchmark.plan.task import Task
from benchmark.vision.data import loaders
from benchmark.vision.macs import count
from benchmark.vision.network import build_model, freeze, prove
from benchmark.vision.training import TrainingError, fit, loss_of, seed_everything
from methods.baseline import Training


def train(bench: Bench, params: Training) -> Output:
    """Train a new network by the task's recipe; returns the network of the last epoch."""
    task, classes = params.task, params.task.data.classes
    _refuse_slow(params, bench.device)
    seed_everything(task.seed)
    model = build_model(task.model, classes)
    with bench.paused():  # neither line is training; the images are in memory from here on
        prove(model, task.model, classes)  # a network that cannot be stored is refused before it is trained
        batches = loaders(task, bench.data_dir, bench.device)
    history = fit(bench, model, batches, loss_of(task.recipe), _as_trained(params))
    with bench.paused():
        network = freeze(model, task.model, classes, task.recipe)
        parameters, macs = count(model)
    return Output(
        network=network,
        values={**history.values(), "params": parameters, "macs": macs},
        details={"history": vars(history), "execution": history.execution},
    )


def _as_trained(params: Training) -> Task:
    """The task with the precision that is really used here."""
    return params.task.model_copy(update={"train_precision": params.autocast}) if params.autocast else params.task


def _refuse_slow(params: Training, device: str) -> None:
    """Raise TrainingError where autocast would make a training unreasonably slow: fp16 on a CPU."""
    if params.autocast == "fp16" and not device.startswith("cuda"):
        raise TrainingError(
            "fp16 training needs a GPU: this CPU would take about a hundred times as long as in fp32; use "
            "method.precision=bf16 (of training/amp) or base_precision=bf16"
        )
