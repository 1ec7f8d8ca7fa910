"""From scores to masks: which filters are removed, and how the masks stay in force while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods.pruning.channels import Channels
from methods.pruning.params import LayerSet, Mode
from methods.pruning.removal import surviving

NNI_CONV = tuple(f"feature.{number}" for number in (0, 24, 27, 30, 34, 37))
"""The convolutions that NNI's example names, written for VGG16: convolutions 1 and 8 to 12."""


def chosen_layers(channels: Channels, layers: LayerSet) -> list[str]:
    """The convolutions of a set whose filters can be removed; ValueError where there are none.

    `nni` is the six names of NNI's example, `nni_conv13` adds feature.40 (Li et al.'s VGG-16-pruned-A), `nni_resnet` is
    every convolution except the two of layer1.0 (the example of v2.4), `all` is every convolution.
    """
    named = {"nni": NNI_CONV, "nni_conv13": (*NNI_CONV, "feature.40")}.get(layers)
    left_out = ("layer1.0.conv1", "layer1.0.conv2") if layers == "nni_resnet" else ()
    found = [name for name in channels.convolutions() if (named is None or name in named) and name not in left_out]
    if layers == "nni_resnet" and len(found) == len(channels.convolutions()):
        found = []
    if not found:
        raise ValueError(f"layers={layers}: the network has none of these convolutions")
    removable = [name for name in found if channels.removable(name)]
    if not removable:
        raise ValueError(f"layers={layers}: no filter of these convolutions can be removed")
    return removable


def choose(
    channels: Channels,
    scores: Mapping[str, Tensor],
    sparsity: Mapping[str, float],
    mode: Mode = "independent",
    earlier: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Masks (bool [filters] on the CPU, True stays) that remove the int(sparsity x n) lowest of n filters, ties by
    index.

    `scores` and `sparsity` name the same convolutions. `independent`: each layer decides by its own scores.
    `dependency_aware`: layers that share channels remove the same channels, by the sum of their scores. They remove as
    many as the smallest of their sparsities says, and none where one of the layers has no score. Filters that `earlier`
    masks removed are removed first. A layer that loses no filter has no mask.
    """
    known = {name: _with_earlier(score, (earlier or {}).get(name)) for name, score in scores.items()}
    for name, share in sparsity.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name}: sparsity {share} would remove everything")
    if mode == "independent":
        masks = {name: lowest_removed(score, int(sparsity[name] * len(score))) for name, score in known.items()}
    else:
        masks = _jointly(channels, known, sparsity)
    return {name: mask for name, mask in masks.items() if not mask.all()}


def lowest_removed(scores: Tensor, count: int) -> Tensor:
    """A mask that is False for exactly `count` filters: those with the lowest scores, on a tie the first ones."""
    mask = torch.ones(len(scores), dtype=torch.bool)
    mask[scores.cpu().argsort(stable=True)[:count]] = False
    return mask


def _with_earlier(score: Tensor, earlier: Tensor | None) -> Tensor:
    score = score.detach().cpu().double()
    return score if earlier is None else score.masked_fill(~earlier, -torch.inf)


def _jointly(channels: Channels, scores: Mapping[str, Tensor], sparsity: Mapping[str, float]) -> dict[str, Tensor]:
    """Masks with one decision per family of channels, or per piece of a family.

    A family is the channels that the same convolutions give. Pieces are needed where grouped convolutions need balanced
    blocks.
    """
    members: dict[int, list[str]] = {}
    worth: dict[int, float] = {}
    for name in channels.convolutions():
        known = scores[name].tolist() if name in scores else [0.0] * len(channels.layers[name].gives)
        for channel, score in zip(channels.layers[name].gives, known, strict=True):
            members.setdefault(channel, []).append(name)
            worth[channel] = worth.get(channel, 0.0) + score
    families: dict[tuple[str, ...], list[int]] = {}
    for channel, names in members.items():
        families.setdefault(tuple(names), []).append(channel)
    removed: set[int] = set()
    for owners, pieces in zip(families, channels.pieces(list(families.values())), strict=True):
        if all(name in scores for name in owners):  # else the union would restore removed filters, with zero weights
            share = min(sparsity[name] for name in owners)
            for piece, unit in pieces:
                joint = torch.tensor([worth[channel] for channel in piece], dtype=torch.float64)
                kept = lowest_removed(joint, int(share * unit) * (len(piece) // unit)).tolist()
                removed.update(channel for channel, keep in zip(piece, kept, strict=True) if not keep)
    removed -= surviving(channels, {name: _mask(channels, name, removed) for name in scores}, worth)
    return {name: _mask(channels, name, removed) for name in scores}


def _mask(channels: Channels, name: str, removed: set[int]) -> Tensor:
    return torch.tensor([channel not in removed for channel in channels.layers[name].gives])


class Held(nn.Module):
    """A parametrisation that multiplies by a mask, so that the filter stays zero whatever the optimiser does."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor * self.mask


def hold(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Make `model` multiply its masked filters, biases included, by their masks in every forward pass, in place."""
    for name, mask in masks.items():
        convolution = model.get_submodule(name)
        for field in ("weight", "bias"):
            tensor = getattr(convolution, field)
            if tensor is not None:
                factor = mask.to(tensor.device, tensor.dtype).view(-1, *[1] * (tensor.dim() - 1))
                parametrize.register_parametrization(convolution, field, Held(factor))


def release(model: nn.Module) -> None:
    """Undo `hold`, in place: the masked values become the plain parameters. Other parametrisations stay."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for field, steps in list(cast(nn.ModuleDict, module.parametrizations).items()):
                if all(isinstance(step, Held) for step in cast(nn.ModuleList, steps)):
                    parametrize.remove_parametrizations(module, field, leave_parametrized=True)
