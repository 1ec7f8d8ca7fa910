"""The training loop of all methods: it knows a model, a loss and a recipe, and nothing about methods or meters."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Bench
from benchmark.plan.task import Recipe, Task
from benchmark.vision.data import Loader, Loaders
from benchmark.vision.evaluation import BrokenNetwork, accuracy
from benchmark.vision.graph import Graphed, graph_backend
from benchmark.vision.learning_rate import rate
from benchmark.vision.loss import CrossEntropy, Loss, loss_of
from benchmark.vision.originals import original_of
from benchmark.vision.published import read_back, worker_batches
from benchmark.vision.switches import set_precision, switches
from benchmark.vision.training_step import (
    History,
    Run,
    TrainingError,
    autocast,
    autocast_told,
    seed_everything,
    start,
    step,
)

__all__ = [
    "CrossEntropy",
    "History",
    "Loss",
    "TrainingError",
    "autocast",
    "fast_epochs",
    "fit",
    "loss_of",
    "published_epochs",
    "rate",
    "seed_everything",
    "set_precision",
]

Epoch = Callable[[int], tuple[float, float, float]]
"""Trains one epoch, given its number; returns summed loss, hits and images seen."""


def fit(bench: Bench, model: nn.Module, loaders: Loaders, loss: Loss, task: Task) -> History:
    """Train `model` in place by `task.recipe`; continues an interrupted run.

    Evaluates on the test set after every `test_every`-th epoch and after the last, off the meter. `loss.Loss` says
    which parameters are trained, and in which modes. The model of the last epoch is the result; the history's
    `execution` says how the steps were executed. Of the task it reads recipe, profile, compile and train_precision.
    Raises TrainingError as soon as an epoch's loss is not a finite number, ValueError where there is nothing to train.
    TF32 and cudnn's switches are set only during the training.
    """
    benchmark = task.profile == "fast" or original_of(task.recipe).cudnn_benchmark
    # only during the training: later code, such as an inference, must not depend on it
    with switches(tf32=task.train_precision != "fp32", cudnn_benchmark=benchmark):
        return _fit(bench, model, loaders, loss, task)


def _fit(bench: Bench, model: nn.Module, loaders: Loaders, loss: Loss, task: Task) -> History:
    recipe = task.recipe
    run = start(model, loss, task, bench.device)
    left = bench.resume()
    if left is not None:
        run.restore(left, bench.device)
    train_epoch = (fast_epochs if task.profile == "fast" else published_epochs)(bench, run, loaders.train, task)
    for epoch in range(run.epoch, recipe.epochs):
        run.begin(epoch)
        _book(run, task, epoch, train_epoch(epoch))
        vars(run.history).update(run.scaler.told())
        run.epoch = epoch + 1
        shown = {"loss": run.history.loss[-1]}
        if run.epoch % recipe.test_every == 0 or run.epoch == recipe.epochs:
            with bench.paused():
                shown["acc_pct"] = _tested(model, loaders.test, last=run.epoch == recipe.epochs)
            run.history.tested(run.epoch, shown["acc_pct"])
        bench.progress(run.epoch, recipe.epochs, **shown)
        if run.epoch < recipe.epochs:
            bench.checkpoint(partial(run.state, bench.device))
    return run.history


def _tested(model: nn.Module, loader: Loader, last: bool) -> float:
    """Accuracy on the test images. A network that answers NaN has none: NaN on the way, an error at the end."""
    try:
        return accuracy(model, loader)
    except BrokenNetwork as error:
        if last:
            raise TrainingError(f"after the last epoch {error}; try a lower recipe.lr or another precision") from error
        return math.nan


def _book(run: Run, task: Task, epoch: int, sums: tuple[float, float, float]) -> None:
    total_loss, hits, seen = sums
    mean = total_loss / seen
    if not math.isfinite(mean):
        raise TrainingError(
            f"the training loss became {mean} in epoch {epoch + 1} of {task.recipe.epochs} (lr {task.recipe.lr:g}, "
            f"precision {task.train_precision}): try a lower recipe.lr, recipe.clip_norm=1, or another train_precision"
        )
    run.history.loss.append(mean)
    run.history.train_acc_pct.append(100 * hits / seen)


def fast_epochs(bench: Bench, run: Run, loader: Loader, task: Task) -> Epoch:
    """Epochs that never wait for the device: data and sums stay on it, and steps are replayed from graphs."""
    totals = torch.zeros(3, dtype=torch.float64, device=bench.device)
    backend = graph_backend(bench.device)
    work = partial(_counted_step, run, task, loader, totals)
    # a compilation within a capture would run code that must not run there, and leave its choice in the graph
    capturing = partial(torch.compiler.set_stance, "fail_on_recompile") if task.compile else nullcontext
    graphed = Graphed(work, backend, _objection(run.loss, task), capturing)

    def epoch(number: int) -> tuple[float, float, float]:
        totals.zero_()
        graphed.renew(_kind_of_steps(run.loss, number))
        with backend.stream() if backend else nullcontext():
            _run_steps(bench, _Steps(run, task.recipe, loader, graphed), number)
            total_loss, hits, seen = totals.tolist()
        if seen != loader.count:
            raise TrainingError(
                f"epoch {number + 1} was to train on {loader.count} images, but the device counted {seen:.0f}: "
                "some steps were not replayed from their graphs: please report this"
            )
        run.history.execution = {
            "profile": "fast",
            "memory_format": str(run.memory_format).removeprefix("torch."),
            "optimiser": "fused",
            "compiled": task.compile,
            "graphs": graphed.sizes,
            "no_graph_because": graphed.reason,
            **autocast_told(task.train_precision, bench.device),
        }
        return total_loss, hits, seen

    return epoch


def _counted_step(run: Run, task: Task, loader: Loader, totals: Tensor, rows: Tensor) -> None:
    """Everything in a graph: the batch made from its rows, the step, and the sums of loss, hits and images.

    The images are counted inside the graph, so their sum shows whether every replay took place.
    """
    images, labels, index = loader.batch(rows)
    value, logits = step(run, task, (images, labels, index))
    count = torch.full((), len(rows), dtype=torch.float64, device=totals.device)
    hits = (logits.argmax(1) == labels).sum()
    totals.add_(torch.stack([value.double() * count, hits.double(), count]))


class _Steps(NamedTuple):
    """What the steps of an epoch need: the training, its recipe, its images, and the function that runs a batch."""

    run: Run
    recipe: Recipe
    loader: Loader
    work: Graphed


def _run_steps(bench: Bench, steps: _Steps, number: int) -> None:
    """The steps of epoch `number`. Never waits for the device once the graphs are captured."""
    loader, recipe, count = steps.loader, steps.recipe, len(steps.loader)
    for done, rows in enumerate(torch.split(loader.choices(number), loader.batch_size)):
        steps.run.set_rate(rate(recipe, number * count + done, count))
        steps.work(rows)
        bench.progress(number + (done + 1) / count, recipe.epochs)


def _kind_of_steps(loss: Loss, epoch: int) -> Hashable:
    """The loss's name for the kind of an epoch's steps; None where all epochs are alike."""
    kind: Callable[[int], Hashable] | None = getattr(loss, "kind_of_steps", None)
    return None if kind is None else kind(epoch)


def _objection(loss: Loss, task: Task) -> str:
    """Why the steps must not be captured; empty where no reason is known."""
    if task.train_precision == "fp16":
        return "the gradient scaler of fp16 is not captured"
    if not getattr(loss, "capturable", False):
        return f"{type(loss).__name__} does not declare capturable = True"
    return ""


def published_epochs(bench: Bench, run: Run, loader: Loader, task: Task) -> Epoch:
    """The originals' loop: batches from worker processes, eager steps, metrics read back."""
    original = original_of(task.recipe)
    told = {"profile": "published", "memory_format": "contiguous", **original._asdict()}
    run.history.execution = {**told, **autocast_told(task.train_precision, bench.device)}

    def epoch(number: int) -> tuple[float, float, float]:
        where = "cpu" if original.every_step else bench.device
        sums = torch.zeros(3, dtype=torch.float64, device=where)
        steps = len(loader)
        for done, batch in enumerate(worker_batches(loader, number, original, bench.device)):
            run.set_rate(rate(task.recipe, number * steps + done, steps))
            value, logits = step(run, task, batch)
            sums = sums + _metrics(value, logits, batch[1], original.every_step)
            if not original.every_step and done % 100 == 0:
                value.item()  # NNI's loop prints it
            bench.progress(number + (done + 1) / steps, task.recipe.epochs)
        total_loss, hits, seen = sums.tolist()
        return total_loss, hits, seen

    return epoch


def _metrics(value: Tensor, logits: Tensor, labels: Tensor, on_host: bool) -> Tensor:
    """Summed loss, top-1 hits and images of a batch: read back to the host at once, or left on the device."""
    count = len(labels)
    if on_host:
        loss, top1, _ = read_back(value, logits, labels)
        return torch.tensor([loss * count, top1, count], dtype=torch.float64)
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([value.double() * count, hits.double(), torch.full_like(hits, count, dtype=torch.float64)])
