"""The training loop every method shares: it knows a model, a loss and a recipe, and nothing of methods or meters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.stage import Bench
from benchmark.task import Recipe, Task, TrainPrecision
from benchmark.vision.data import Loaders
from benchmark.vision.evaluation import accuracy


class TrainingError(Exception):
    """Training cannot go on (a loss that is not a number); the message says where and what to try."""


class Loss(Protocol):
    """Maps a model and a batch to (loss, logits). An implementation is an nn.Module and may own parameters, which
    train too."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]: ...
    def parameters(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...
    def train(self) -> Any: ...
    def to(self, device: str) -> Any: ...


class CrossEntropy(nn.Module):
    """Mean cross-entropy of the model's logits, with the recipe's label smoothing."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """`index` goes unused: it is there for losses that remember images."""
        del index
        logits = model(images)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


@dataclass
class History:
    """What training saw, an entry an epoch: mean training loss, training and test accuracy in percent."""

    loss: list[float] = field(default_factory=list)
    train_acc_pct: list[float] = field(default_factory=list)
    test_acc_pct: list[float] = field(default_factory=list)

    def values(self) -> dict[str, float]:
        """The last epoch, which is the result, and the best one beside it, named so (chosen on the test set: never a
        result)."""
        best = max(range(len(self.test_acc_pct)), key=self.test_acc_pct.__getitem__)
        return {
            "acc_pct": self.test_acc_pct[-1],
            "best_acc_pct": self.test_acc_pct[best],
            "best_epoch": best + 1,
            "train_acc_pct": self.train_acc_pct[-1],
            "loss": self.loss[-1],
            "epochs": len(self.loss),
        }


def rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step number `step`, counted from 0 over the whole training."""
    if recipe.schedule == "multistep":
        epoch = step // steps_per_epoch
        passed = sum(epoch >= max(1, round(fraction * recipe.epochs)) for fraction in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    if recipe.schedule == "onecycle":
        total = recipe.epochs * steps_per_epoch
        rise = max(1.0, recipe.warmup * total)
        return recipe.lr * (min((step + 1) / rise, 1.0) if step < rise else (total - step) / (total - rise))
    return recipe.lr


def set_precision(precision: TrainPrecision) -> None:
    """Set the process-wide switches of a precision: TF32 in convolutions and matrix products only where it is asked
    for."""
    allowed = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: TrainPrecision, device: str) -> AbstractContextManager[None]:
    """The autocast region of a precision; nothing for fp32 and tf32."""
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    if precision == "fp16":
        return torch.autocast(torch.device(device).type, dtype=torch.float16)
    return nullcontext()


def seed_everything(seed: int) -> None:
    """Seed torch's global generators (CPU and GPU): initial weights, dropout."""
    torch.manual_seed(seed)


@dataclass
class _Run:
    """Everything that changes while training, and so everything a checkpoint holds."""

    model: nn.Module
    loss: Loss
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    history: History
    epoch: int = 0

    def state(self, device: str) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": vars(self.history),
            "epoch": self.epoch,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(device) if device.startswith("cuda") else None,
        }

    def restore(self, state: Mapping[str, Any], device: str) -> None:
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = History(**state["history"])
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"], device)


def fit(bench: Bench, model: nn.Module, loaders: Loaders, loss: Loss, task: Task) -> History:
    """Train `model` in place by `task.recipe`, resuming an interrupted run; evaluate on the test set after every
    epoch, off the meter.

    The model of the last epoch is the result. Reads of the task: recipe, train_precision, seed. Raises TrainingError
    as soon as
    an epoch's loss is not a finite number.
    """
    recipe = task.recipe
    set_precision(task.train_precision)
    model.to(bench.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in the stub
    loss.to(bench.device)
    parameters = [parameter for owner in (model, loss) for parameter in owner.parameters()]
    optimiser = torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    scaler = torch.amp.GradScaler(torch.device(bench.device).type, enabled=task.train_precision == "fp16")
    run = _Run(model, loss, optimiser, scaler, History())
    left = bench.resume()
    if left is not None:
        run.restore(left, bench.device)
    for epoch in range(run.epoch, recipe.epochs):
        _train_epoch(bench, run, loaders, task, epoch)
        with bench.paused():
            test = accuracy(model, loaders.test)
        run.history.test_acc_pct.append(test)
        run.epoch = epoch + 1
        bench.progress(run.epoch, recipe.epochs, loss=run.history.loss[-1], acc_pct=test)
        if run.epoch < recipe.epochs:
            bench.checkpoint(partial(run.state, bench.device))
    return run.history


def _train_epoch(bench: Bench, run: _Run, loaders: Loaders, task: Task, epoch: int) -> None:
    """One epoch; its sums stay on the device until the end, so that no step waits for the host."""
    run.model.train()
    run.loss.train()
    totals = torch.zeros(2, dtype=torch.float64, device=bench.device)  # summed loss, hits
    steps = len(loaders.train)
    for step, (images, labels, index) in enumerate(loaders.train.epoch(epoch)):
        value, logits = _step(run, task, (images, labels, index), rate(task.recipe, epoch * steps + step, steps))
        hits = (logits.argmax(1) == labels).sum()
        totals += torch.stack([value.double() * len(labels), hits.double()])
        bench.progress(epoch + (step + 1) / steps, task.recipe.epochs)
    total_loss, hits_sum = totals.tolist()
    seen = len(loaders.train.images)
    mean = total_loss / seen
    if not math.isfinite(mean):
        raise TrainingError(
            f"the training loss became {mean} in epoch {epoch + 1} of {task.recipe.epochs} (lr {task.recipe.lr:g}, "
            f"precision {task.train_precision}): try a lower recipe.lr, recipe.clip_norm=1, or another train_precision"
        )
    run.history.loss.append(mean)
    run.history.train_acc_pct.append(100 * hits_sum / seen)


def _step(run: _Run, task: Task, batch: tuple[Tensor, Tensor, Tensor], learning_rate: float) -> tuple[Tensor, Tensor]:
    """One optimiser step; returns the detached loss and logits."""
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate
    images, labels, index = batch
    with autocast(task.train_precision, str(images.device)):
        value, logits = run.loss(run.model, images.contiguous(memory_format=torch.channels_last), labels, index)
    run.optimiser.zero_grad(set_to_none=True)
    run.scaler.scale(value).backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
    if task.recipe.clip_norm is not None:
        run.scaler.unscale_(run.optimiser)
        trained = [parameter for group in run.optimiser.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(trained, task.recipe.clip_norm)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    return value.detach(), logits.detach()


def loss_of(recipe: Recipe) -> CrossEntropy:
    """The plain loss a recipe asks for."""
    return CrossEntropy(recipe.label_smoothing)
