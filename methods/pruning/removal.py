"""From masks to a physically smaller network."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods.pruning.channels import Block, Channels, Layer
from methods.pruning.trace import follow


def shrink(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` without the filters that `masks` (convolution -> bool [filters], True stays) remove.

    A channel survives if any of the convolutions that share it keeps it; a convolution without a mask keeps all its
    filters. A filter that survives against its own mask comes back with zero weights, as in NNI, and keeps its batch
    norm. Raises ValueError where the channels cannot be followed, a mask fits no convolution, a layer would lose
    everything, or the network still has its masks as parametrisations.
    """
    found = next((name for name, module in model.named_modules() if parametrize.is_parametrized(module)), None)
    if found is not None:
        raise ValueError(
            f"a parametrised network cannot be shrunk, and layer {found} is: remove its parametrisations first "
            "(torch.nn.utils.parametrize.remove_parametrizations; release() does it for masks)"
        )
    smaller = copy.deepcopy(model)
    channels = follow(smaller)
    stay = surviving(channels, masks)
    zero(smaller, masks)
    for name, layer in channels.layers.items():
        _cut(name, layer, stay)
    return smaller


def zero(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masked filters of `model`, biases included, to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            convolution = model.get_submodule(name)
            for tensor in (convolution.weight, convolution.bias):
                if isinstance(tensor, Tensor):
                    kept = mask.to(tensor.device, tensor.dtype)
                    tensor.mul_(kept.view(-1, *[1] * (tensor.dim() - 1)))


def surviving(
    channels: Channels, masks: Mapping[str, Tensor], worth: Mapping[int, float] | None = None
) -> frozenset[int]:
    """The channels that stay: those that any member keeps, the locked ones, and as many more as balanced blocks need.

    Balanced blocks must keep the same number of channels. They get back the removed channels with the largest `worth`
    first; without `worth`, or on a tie, the first ones in the block's order.
    """
    stay = set(channels.locked)
    for name in channels.convolutions():
        gives = channels.layers[name].gives
        mask = masks.get(name)
        kept = [True] * len(gives) if mask is None else mask.tolist()
        if len(kept) != len(gives):
            raise ValueError(f"the mask of {name} has {len(kept)} entries for {len(gives)} filters")
        if not any(kept):
            raise ValueError(f"the mask of {name} removes all of its {len(gives)} filters")
        stay.update(channel for channel, keep in zip(gives, kept, strict=True) if keep)
    unknown = set(masks) - set(channels.convolutions())
    if unknown:
        raise ValueError(f"no such convolution: {', '.join(sorted(unknown))}")
    while any(_balance(blocks, stay, worth or {}) for blocks in channels.balanced):
        pass  # giving channels back to one set may unbalance another; it ends because channels only come back
    return frozenset(stay)


def _balance(blocks: tuple[Block, ...], stay: set[int], worth: Mapping[int, float]) -> bool:
    """Give channels back until every block keeps as many as the fullest; returns whether any came back."""
    most = max(sum(channel in stay for channel in block) for block in blocks)
    back: list[int] = []
    for block in blocks:
        removed = [channel for channel in block if channel not in stay]
        lacking = most - (len(block) - len(removed))
        back += sorted(removed, key=lambda channel: -worth.get(channel, 0.0))[:lacking]
    stay.update(back)
    return bool(back)


def _cut(name: str, layer: Layer, stay: frozenset[int]) -> None:
    """Reduce a layer, in place, to the channels that stay."""
    module = layer.module
    rows = [position for position, channel in enumerate(layer.gives) if channel in stay]
    columns = [position for position, channel in enumerate(layer.takes) if channel in stay]
    if not rows or not columns:
        raise ValueError(f"nothing would be left of {name}")
    if isinstance(module, nn.Conv2d):
        _cut_convolution(module, layer, rows, columns)
    elif isinstance(module, nn.Linear):
        each = module.in_features // len(layer.takes)
        _select(module, "weight", 1, [column * each + k for column in columns for k in range(each)])
        module.in_features = len(columns) * each
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        for field in ("weight", "bias", "running_mean", "running_var"):
            _select(module, field, 0, rows)
        module.num_features = len(rows)


def _cut_convolution(module: nn.Conv2d, layer: Layer, rows: list[int], columns: list[int]) -> None:
    _select(module, "bias", 0, rows)
    if module.groups == 1 or layer.depthwise:
        _select(module, "weight", 0, rows)
        if layer.depthwise:
            module.groups = len(rows)
        else:
            _select(module, "weight", 1, columns)
    else:
        _cut_grouped(module, rows, columns)
    module.out_channels, module.in_channels = len(rows), len(columns)


def _cut_grouped(module: nn.Conv2d, rows: list[int], columns: list[int]) -> None:
    """Reduce a grouped convolution: each group's columns are the kept ones of its own block of input channels."""
    tall, wide = module.out_channels // module.groups, module.in_channels // module.groups
    blocks = []
    for group in range(module.groups):
        mine = [row for row in rows if row // tall == group]
        own = [column - group * wide for column in columns if column // wide == group]
        blocks.append(module.weight.detach()[mine][:, own])
    module.weight = nn.Parameter(torch.cat(blocks), requires_grad=module.weight.requires_grad)


def _select(module: nn.Module, field: str, axis: int, positions: list[int]) -> None:
    tensor = getattr(module, field)
    if tensor is None or len(positions) == tensor.shape[axis]:
        return
    kept = tensor.detach().index_select(axis, torch.tensor(positions, device=tensor.device)).contiguous()
    if isinstance(tensor, nn.Parameter):
        setattr(module, field, nn.Parameter(kept, requires_grad=tensor.requires_grad))
    else:
        module.register_buffer(field, kept)
