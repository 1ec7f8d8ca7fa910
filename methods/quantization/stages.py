"""The stage function of quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmark.deploy.points import ANSWERS, points
from benchmark.plan.stage import Bench, Output
from benchmark.vision.data import Loader
from benchmark.vision.evaluation import BrokenNetwork, broken
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.modes import evaluating
from benchmark.vision.training import fit
from methods.quantization.aware import Aware, Simulating
from methods.quantization.fake import FakeQuantized
from methods.stages import handed_on, network_of, ready

LAYOUTS: tuple[Any, ...] = ("trt", "ort")


class Simulated(CrossEntropy):
    """The plain loss; it also stops ranges and batch norm's statistics after their epochs."""

    def __init__(self, label_smoothing: float, simulating: FakeQuantized, how: Simulating) -> None:
        super().__init__(label_smoothing)
        # in a closure, because the network belongs to the model and not to the loss
        self._stop: Callable[[int], None] = lambda epoch: _stop(simulating, how, epoch)
        self._how = how

    def begin_epoch(self, epoch: int) -> None:
        """Epochs count from 0."""
        self._stop(epoch)

    def kind_of_steps(self, epoch: int) -> tuple[bool, bool]:
        """Whether ranges move, and whether statistics move; graphs of one kind must not be replayed for another."""
        return epoch < self._how.observer_epochs, epoch < self._how.batch_norm_epochs


def _stop(simulating: FakeQuantized, how: Simulating, epoch: int) -> None:
    simulating.observe(epoch < how.observer_epochs)
    simulating.freeze_batch_norm(epoch >= how.batch_norm_epochs)


def train(bench: Bench, params: Aware, trained: Output) -> Output:
    """Train a network further under fake quantization.

    Returns the network in float, its scales, and its answers to the test images in both layouts of an engine;
    accuracies are those under fake quantization.
    """
    task, how = params.task, params.how
    model, batches = ready(bench, task, trained, params.first_epoch)
    with bench.paused():  # engine building pays for such an export anyway
        where = points(network_of(trained))
    simulating = FakeQuantized(model, where, how.scales, how.layout, how.averaging).to(bench.device)
    loss = Simulated(task.recipe.label_smoothing, simulating, how)
    history = fit(bench, simulating, batches, loss, task)
    values = {"acc_before_pct": trained.values["acc_pct"], **history.values()}
    with bench.paused():
        arrays = simulating.arrays()
        for layout in LAYOUTS:
            simulating.set_layout(layout)
            arrays[ANSWERS + layout] = _answers(simulating, batches.test)
    made = handed_on(bench, model, network_of(trained), values, {"history": vars(history), "how": how.model_dump()})
    return replace(made, arrays=arrays)


@torch.inference_mode()
def _answers(simulating: FakeQuantized, loader: Loader) -> Tensor:
    """The class predicted for every image, int16."""
    found = []
    with evaluating(simulating):
        for images, _, _ in loader:
            logits = simulating(images)
            if broken(logits):
                raise BrokenNetwork("under fake quantization the network answers NaN or infinity to a test image")
            found.append(logits.argmax(1).to(torch.int16).cpu())
    return torch.cat(found)
