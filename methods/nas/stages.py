"""Trains the network that a search found: the last training stage of all searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from benchmark.plan.stage import Bench, Output
from benchmark.plan.task import Model, Task
from benchmark.vision.data import loaders
from benchmark.vision.loss import Loss, loss_of
from benchmark.vision.macs import count
from benchmark.vision.models.nas.darts import CellNetwork
from benchmark.vision.network import build_model, freeze, prove
from benchmark.vision.training import fit, seed_everything
from methods.nas.darts.objective import cell_loss
from methods.nas.params import Retraining


def retrain(bench: Bench, params: Retraining, searched: Output | None = None) -> Output:
    """Train the network of an architecture from scratch by the task's recipe; returns the network of the last epoch.

    The architecture is the one that the search found, or, without a search, that of the parameters.
    """
    task = params.task
    architecture = params.architecture if searched is None else searched.details["architecture"]
    assert architecture is not None, "the plan gives an architecture, or a search"
    model, classes = derived(task.model, architecture), task.data.classes
    seed_everything(task.seed)
    network = build_model(model, classes)
    with bench.paused():  # neither line is training; the images are in memory from here on
        prove(network, model, classes)
        batches = loaders(task, bench.data_dir, bench.device)
    history = fit(bench, network, batches, _loss(network, params, task), task)
    with bench.paused():
        frozen = freeze(network, model, classes, task.recipe)
        parameters, macs = count(network)
    return Output(
        network=frozen,
        values={**history.values(), "params": parameters, "macs": macs},
        details={"history": vars(history), "execution": history.execution, "architecture": dict(architecture)},
    )


def derived(space: Model, architecture: Mapping[str, Any]) -> Model:
    """The model of an architecture in a space: the builder and all its arguments except the classes."""
    return space.model_copy(update={"kwargs": {**space.kwargs, **architecture}})


def _loss(network: nn.Module, params: Retraining, task: Task) -> Loss:
    if not params.auxiliary_weight and not params.drop_path:
        return loss_of(task.recipe)
    cells = cast(CellNetwork, network)
    loss = cell_loss(cells, task.data.classes, params.auxiliary_weight, params.drop_path, task.recipe.epochs)
    loss.label_smoothing = task.recipe.label_smoothing
    return loss
