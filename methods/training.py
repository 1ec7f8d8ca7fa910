"""The stage function of plain training."""

from __future__ import annotations

from benchmark.plan.stage import Bench, Output
from benchmark.vision.data import loaders
from benchmark.vision.macs import count
from benchmark.vision.network import build_model, freeze
from benchmark.vision.training import fit, loss_of, seed_everything
from methods.baseline import Training


def train(bench: Bench, params: Training) -> Output:
    """Train a fresh network by the task's recipe; hands on the network of the last epoch."""
    task = params.task
    seed_everything(task.seed)
    model = build_model(task.model, task.data.classes)
    with bench.paused():  # reading files is not training; the image set lies in memory from here on
        batches = loaders(task, bench.data_dir, bench.device)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    parameters, macs = count(model)
    return Output(
        network=freeze(model, task.model, task.data.classes, task.recipe),
        values={**history.values(), "params": parameters, "macs": macs},
        details={"history": vars(history), "execution": history.execution},
    )
