"""The stage functions of pruning: mask, shrink, finetune. Evaluation is off the meter in all of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn

from benchmark.stage import Bench, Network, Output
from benchmark.task import Recipe, Task
from benchmark.vision.cost import count
from benchmark.vision.data import Batch, Loaders, loaders
from benchmark.vision.evaluation import accuracy
from benchmark.vision.network import freeze, load
from benchmark.vision.training import fit, loss_of, seed_everything
from methods.pruning import removal
from methods.pruning.channels import follow
from methods.pruning.criteria import by_weights, collect
from methods.pruning.masks import choose, chosen_layers, hold, release
from methods.pruning.plan import ITERATIVE, Choice, FineTuning, Masking, Shrinking


def mask(bench: Bench, params: Masking, trained: Output) -> Output:
    """Score the filters of a trained network and mask the lowest; the 'iterative' criteria train extra epochs with it.

    apoz and activation_mean train the masked network, taylorfo the dense one, which is masked at the end (NNI 2.3).
    Hands on the network with its masked filters at zero, and the masks.
    """
    task, criterion = params.task, params.choice.scoring.criterion
    model, batches, before = _ready(bench, task, trained)
    masks = _choose(model, batches, params, trained.arrays)
    values: dict[str, float] = {"acc_before_pct": before}
    if params.extra_epochs:
        if criterion != "taylorfo":
            hold(model, masks)
        history = fit(bench, model, batches, loss_of(task.recipe), task)
        release(model)
        values |= {"loss": history.loss[-1], "epochs": len(history.loss)}
    removal.zero(model, masks)
    with bench.paused():
        values["acc_pct"] = accuracy(model, batches.test)
    kept = {name: int(layer.sum()) for name, layer in masks.items()}
    return _output(model, task, values, masks, {"filters_kept_by_masks": kept})


def shrink(bench: Bench, params: Shrinking, masked: Output) -> Output:
    """Make a masked network physically smaller; its accuracy may change, for what dead filters' batch norms added is
    gone."""
    model, batches, before = _ready(bench, params.task, masked)
    masks = masked.arrays or {}
    if params.backend == "nni":
        from methods.nni_bridge.pruning import speed_up  # here: the suite works without nni

        smaller = speed_up(model, masks)
    else:
        smaller = removal.shrink(model, masks)
    with bench.paused():
        values = {"acc_masked_pct": before, "acc_pct": accuracy(smaller, batches.test)}
    widths = {name: module.out_channels for name, module in smaller.named_modules() if isinstance(module, nn.Conv2d)}
    return _output(smaller, params.task, values, {}, {"filters": widths})


def finetune(bench: Bench, params: FineTuning, pruned: Output) -> Output:
    """Train a pruned network on, with a new optimiser; masked filters stay zero. Hands on the last epoch, and masks."""
    task = params.task
    model, batches, before = _ready(bench, task, pruned)
    masks = pruned.arrays or {}
    hold(model, masks)
    history = fit(bench, model, batches, loss_of(task.recipe), task)
    release(model)
    values = {"acc_before_pct": before, **history.values()}
    return _output(model, task, values, masks, {"history": vars(history)})


def _ready(bench: Bench, task: Task, given: Output) -> tuple[nn.Module, Loaders, float]:
    """The given network on the device, the task's batches, and the network's accuracy in percent."""
    assert isinstance(given.network, Network), "a stage of pruning needs a network"
    seed_everything(task.seed)
    model = load(given.network).to(bench.device)
    with bench.paused():
        batches = loaders(task, bench.data_dir, bench.device)
        return model, batches, accuracy(model, batches.test)


def _choose(
    model: nn.Module, batches: Loaders, params: Masking, earlier: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """The masks, with training steps for the criteria that look at data taken on a copy."""
    choice, recipe = params.choice, params.task.recipe
    channels = follow(model)
    layers = chosen_layers(channels, choice.layers)
    steps = _first(batches, choice)
    if choice.backend == "nni":
        from methods.nni_bridge import pruning as bridge  # here: the suite works without nni

        return bridge.masks(model, layers, steps, recipe, choice)
    scores = score(model, layers, steps, recipe, choice)
    return choose(channels, scores, dict.fromkeys(layers, choice.sparsity), choice.mode, earlier)


def score(model: nn.Module, layers: list[str], steps: list[Batch], recipe: Recipe, choice: Choice) -> dict[str, Tensor]:
    """The native scores of some convolutions; `model` stays as it is."""
    if choice.scoring.criterion in ITERATIVE:
        return collect(copy.deepcopy(model), layers, steps, recipe, choice.scoring)
    weights: dict[str, Any] = {name: model.get_submodule(name).weight for name in layers}
    return by_weights(weights, choice.scoring.criterion)


def _first(batches: Loaders, choice: Choice) -> list[Batch]:
    """The training batches to look at: the first of the first epoch."""
    if choice.scoring.criterion not in ITERATIVE:
        return []
    wanted = choice.scoring.batches
    if wanted > len(batches.train):
        raise ValueError(f"statistics_batches={wanted}: an epoch has {len(batches.train)} batches")
    return list(islice(batches.train.epoch(0), wanted))


def _output(
    model: nn.Module, task: Task, values: Mapping[str, float], masks: Mapping[str, Tensor], details: Mapping[str, Any]
) -> Output:
    parameters, macs = count(model)
    return Output(
        network=freeze(model, task.model, task.data.classes, task.recipe),
        arrays=dict(masks) or None,
        values={**values, "params": parameters, "macs": macs},
        details=details,
    )
