"""Whether a network can be pruned as asked: tried on the meta device, before any training."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from benchmark.task import Model
from benchmark.vision.cost import count
from benchmark.vision.network import build_model
from methods.pruning.channels import follow
from methods.pruning.masks import choose, chosen_layers
from methods.pruning.plan import Choice
from methods.pruning.removal import shrink


def rehearse(model: Model, classes: int, choice: Choice) -> tuple[int, int]:
    """Prune the model by random scores, without weights; returns the parameters and MACs that would be left, about.

    Raises ValueError, with the cause, where channels cannot be followed, no filter would go, or the backend cannot do
    it.
    """
    with torch.device("meta"):
        network = build_model(model, classes)
    try:
        return _rehearse(network, choice)
    except ValueError as error:
        raise ValueError(f"model {model.name} cannot be pruned so: {error}") from error


def _rehearse(network: nn.Module, choice: Choice) -> tuple[int, int]:
    channels = follow(network)
    if choice.backend == "nni":
        if importlib.util.find_spec("nni") is None:
            raise ValueError("backend=nni needs nni 3.0, which is not installed: use backend=native")
        grouped = [name for name in channels.convolutions() if channels.layers[name].module.groups != 1]
        if grouped:
            raise ValueError(f"backend=nni shrinks no grouped convolutions ({grouped[0]}, ...): use backend=native")
    layers = chosen_layers(channels, choice.layers)
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(len(channels.layers[name].gives), generator=generator) for name in layers}
    masks = choose(channels, scores, dict.fromkeys(layers, choice.sparsity), choice.mode)
    before, after = count(network), count(shrink(network, masks))
    if after == before:
        raise ValueError(f"a sparsity of {choice.sparsity} ({choice.mode}) removes no filter of layers={choice.layers}")
    return after
