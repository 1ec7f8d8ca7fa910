"""Checks on the meta device, before any training, whether a network can be pruned as asked."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from benchmark.plan.task import Model, Task
from benchmark.vision.macs import count
from benchmark.vision.network import build_model, take_shapes
from benchmark.vision.rehearsal import check
from methods.pruning.criteria.subject import Subject
from methods.pruning.masks import choose, chosen_layers
from methods.pruning.params import Choice
from methods.pruning.removal import shrink, surviving
from methods.pruning.scores import named, try_out
from methods.pruning.trace import follow

BATCHES = (2, 3)
"""Sizes of the batches that a pruned network is tried on."""
LEAST_SHARE = 0.1
"""The share of the filters asked for by the sparsity that must really be removed: with fewer, it is another method."""


def rehearse(model: Model, classes: int, choice: Choice) -> None:
    """Prune the model by random scores, without weights, and try the criterion on a small network.

    Raises ValueError, with the cause, where the criterion fails, channels cannot be followed, hardly any filter would
    be removed, the smaller network would not run or could not be stored, or the backend cannot prune it.
    """
    try_out(choice.scoring)
    with torch.device("meta"):
        network, stored = build_model(model, classes), build_model(model, classes)
    try:
        smaller = _rehearse(network, choice)
        take_shapes(stored, smaller.state_dict())  # as an artifact, which holds only shapes
        try:
            sizes = count(smaller), count(stored)
        except RuntimeError as error:  # torch raises this for shapes that do not fit
            raise ValueError(f"the smaller network does not run: {error}") from error
        check(smaller, classes, BATCHES)
        if sizes[0] != sizes[1]:
            raise ValueError("the smaller network cannot be rebuilt from the shapes of its tensors")
    except ValueError as error:
        raise ValueError(f"model {model.name} cannot be pruned with these settings: {error}") from error


def rehearse_with_nni(task: Task, choice: Choice) -> None:
    """Mask and shrink the model, with random weights and images, by NNI itself: it has limits of its own.

    Takes some seconds on the CPU. Raises ValueError with the cause.
    """
    from methods.nni_bridge import pruning as bridge  # here: it imports nni

    bridge.prepare()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(task.model, task.data.classes)
        images = torch.randn(max(BATCHES), 3, 32, 32, generator=generator)
        labels = torch.randint(task.data.classes, (len(images),), generator=generator)
        batch = (images, labels, torch.arange(len(images)))
        layers = chosen_layers(follow(network), choice.layers)
        subject = Subject(network, layers, [batch] * choice.scoring.batches, task.recipe)
        try:
            masks = bridge.masks(subject, choice)
            smaller = bridge.speed_up(network, masks)
            check(smaller.to("meta"), task.data.classes, BATCHES)
        except Exception as error:  # NNI may fail in any way
            words = " ".join(str(error).split())[:300]
            raise ValueError(
                f"model {task.model.name} cannot be pruned by NNI ({type(error).__name__}: {words}): use backend=native"
            ) from error


def _rehearse(network: nn.Module, choice: Choice) -> nn.Module:
    channels = follow(network)
    if choice.nni_pruner is not None:
        if importlib.util.find_spec("nni") is None:
            raise ValueError("backend=nni needs nni 3.0, which is not installed: use backend=native")
        named(choice.nni_pruner)
        grouped = [name for name in channels.convolutions() if channels.layers[name].module.groups != 1]
        if grouped:
            raise ValueError(f"backend=nni cannot shrink grouped convolutions ({grouped[0]}, ...): use backend=native")
    layers = chosen_layers(channels, choice.layers)
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(len(channels.layers[name].gives), generator=generator) for name in layers}
    masks = choose(channels, scores, dict.fromkeys(layers, choice.sparsity), choice.mode)
    stay = surviving(channels, masks)
    asked = sum(int(choice.sparsity * len(score)) for score in scores.values())
    gone = sum(channel not in stay for name in layers for channel in channels.layers[name].gives)
    if not gone:
        raise ValueError(f"a sparsity of {choice.sparsity} ({choice.mode}) removes no filter of layers={choice.layers}")
    if gone < LEAST_SHARE * asked:
        other = "mode=dependency_aware" if choice.mode == "independent" else "another sparsity"
        raise ValueError(
            f"only about {gone} of {asked} filters can be removed, because other layers need the rest: try {other}"
        )
    return shrink(network, masks)
