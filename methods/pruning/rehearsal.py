"""Whether a network can be pruned as asked: tried on the meta device, before any training."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from benchmark.task import Model
from benchmark.vision.cost import count
from benchmark.vision.network import build_model, take_shapes
from methods.pruning.channels import follow
from methods.pruning.masks import choose, chosen_layers
from methods.pruning.params import Choice
from methods.pruning.removal import shrink, surviving

LEAST_SHARE = 0.1
"""Of the masked filters, the share that must really go: below it, fine-tuning trains a network that is mostly dead."""


def rehearse(model: Model, classes: int, choice: Choice) -> None:
    """Prune the model by random scores, without weights.

    Raises ValueError, with the cause, where channels cannot be followed, hardly a filter would go, the smaller network
    would not run or could not be stored, or the backend cannot do it.
    """
    with torch.device("meta"):
        network, stored = build_model(model, classes), build_model(model, classes)
    try:
        smaller = _rehearse(network, choice)
        sizes = count(smaller)
        take_shapes(stored, smaller.state_dict())  # as an artifact, which knows shapes alone
        if count(stored) != sizes:
            raise ValueError("its shapes do not say what network it is")
        if sizes == count(network):
            raise ValueError(
                f"a sparsity of {choice.sparsity} ({choice.mode}) removes no filter of layers={choice.layers}"
            )
    except Exception as error:  # a network may fail in any way; all of them mean the same to the user
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"model {model.name} cannot be pruned so: {cause}") from error


def _rehearse(network: nn.Module, choice: Choice) -> nn.Module:
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
    stay = surviving(channels, masks)
    masked = sum(int((~mask).sum()) for mask in masks.values())
    gone = sum(channel not in stay for name in masks for channel in channels.layers[name].gives)
    if gone < LEAST_SHARE * masked:
        raise ValueError(
            f"of {masked} masked filters only about {gone} can be removed, for other layers need the rest: "
            "use mode=dependency_aware"
        )
    return shrink(network, masks)
