"""The stage functions of pruning: mask, extra_epochs, shrink, finetune. Evaluation is off the meter in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from torch import Tensor, nn

from benchmark.plan.stage import Bench, Output
from benchmark.vision.data import Batch, Loaders
from benchmark.vision.evaluation import accuracy
from benchmark.vision.training import fit, loss_of
from methods.pruning import removal
from methods.pruning.criteria.subject import Subject
from methods.pruning.masks import choose, chosen_layers, hold, release
from methods.pruning.params import ExtraTraining, Masking, Shrinking
from methods.pruning.scores import find, score
from methods.pruning.trace import follow
from methods.stages import handed_on, network_of, ready
from methods.way import FineTuning


def mask(bench: Bench, params: Masking, trained: Output) -> Output:
    """Score the filters of a trained network and mask the lowest.

    Returns the network with these filters set to zero, and the masks.
    """
    task = params.task
    model, batches = ready(bench, task, trained, params.first_epoch)
    masks = _choose(bench, model, batches, params, trained.arrays)
    removal.zero(model, masks)
    with bench.paused():
        values = {"acc_before_pct": trained.values["acc_pct"], "acc_pct": accuracy(model, batches.test)}
    kept = {name: int(layer.sum()) for name, layer in masks.items()}
    output = handed_on(bench, model, network_of(trained), values, {"filters_kept_by_masks": kept})
    return replace(output, arrays=masks or None)


def extra_epochs(bench: Bench, params: ExtraTraining, masked: Output, trained: Output | None = None) -> Output:
    """The training that NNI's 'iterative' pruners do themselves.

    It trains the masked network, or the dense one (`trained`), which is then masked at the end (NNI 2.3's taylorfo).
    """
    task, masks = params.task, masked.arrays or {}
    given = masked if trained is None else trained
    model, batches = ready(bench, task, given, params.first_epoch)
    if params.masked:
        hold(model, masks)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    release(model)
    removal.zero(model, masks)
    with bench.paused():
        values = {"acc_before_pct": given.values["acc_pct"], "acc_pct": accuracy(model, batches.test)}
    values |= {"loss": history.loss[-1], "epochs": len(history.loss)}
    output = handed_on(bench, model, network_of(given), values, {"history": vars(history)})
    return replace(output, arrays=dict(masks) or None)


def shrink(bench: Bench, params: Shrinking, masked: Output) -> Output:
    """Make a masked network physically smaller.

    Its accuracy may change, because the shifts of the removed filters' batch norms are gone.
    """
    model, batches = ready(bench, params.task, masked)
    masks = masked.arrays or {}
    shrinking = _bridge(bench).speed_up if params.backend == "nni" else removal.shrink
    smaller = shrinking(model, masks)
    with bench.paused():
        values = {"acc_masked_pct": masked.values["acc_pct"], "acc_pct": accuracy(smaller, batches.test)}
    widths = {name: module.out_channels for name, module in smaller.named_modules() if isinstance(module, nn.Conv2d)}
    return handed_on(bench, smaller, network_of(masked), values, {"filters": widths})


def finetune(bench: Bench, params: FineTuning, pruned: Output) -> Output:
    """Train a pruned network further, with a new optimiser; masked filters stay zero.

    Returns the network of the last epoch, and the masks.
    """
    task = params.task
    model, batches = ready(bench, task, pruned, params.first_epoch)
    masks = pruned.arrays or {}
    hold(model, masks)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    release(model)
    values = {"acc_before_pct": pruned.values["acc_pct"], **history.values()}
    output = handed_on(bench, model, network_of(pruned), values, {"history": vars(history)})
    return replace(output, arrays=dict(masks) or None)


def _choose(
    bench: Bench, model: nn.Module, batches: Loaders, params: Masking, earlier: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """The masks; criteria that look at data take their training steps on a copy."""
    choice = params.choice
    bridge = _bridge(bench) if choice.nni_pruner else None
    with bench.paused():
        find(choice.scoring)  # this imports the criterion's module, which may be any user's
    channels = follow(model)
    layers = chosen_layers(channels, choice.layers)
    subject = Subject(model, layers, _first(batches, choice.scoring.batches, bench.device), params.task.recipe)
    if bridge is not None:
        return cast(dict[str, Tensor], bridge.masks(subject, choice))
    scores = score(subject, choice.scoring)
    return choose(channels, scores, dict.fromkeys(layers, choice.sparsity), choice.mode, earlier)


def _bridge(bench: Bench) -> Any:
    """The bridge to NNI, imported off the meter, because a process pays for it only once, in whichever pruner is first.

    The import is here and not at the top, so that the suite runs without nni.
    """
    with bench.paused():
        from methods.nni_bridge import pruning

        pruning.prepare()
    return pruning


def _first(batches: Loaders, wanted: int, device: str) -> list[Batch]:
    """The training batches to look at: the first of the next epoch, on the device.

    They are copied there because the published profile keeps its images in host memory.
    """
    if wanted > len(batches.train):
        raise ValueError(f"statistics_batches={wanted}: an epoch has {len(batches.train)} batches")
    if not wanted:
        return []
    first = islice(batches.train.epoch(0), wanted)
    return [(images.to(device), labels.to(device), index.to(device)) for images, labels, index in first]
