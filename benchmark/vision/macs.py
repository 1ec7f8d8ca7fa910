"""The size of a network: parameters and multiply-accumulates (MACs)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.vision.modes import evaluating


def count(model: nn.Module, size: int = 32) -> tuple[int, int]:
    """Parameters, and MACs of convolution and linear layers for one image [3, size, size].

    Runs on the meta device too; on any other device it computes, so a stage calls it off the meter. Biases, batch norm
    and pooling count as parameters where they have some, never as MACs: the convention of the pruning literature.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    return sum(p.numel() for p in model.parameters()), macs(model, image)


def macs(module: nn.Module, x: Tensor) -> int:
    """MACs of the convolution and linear layers of a module, in eval mode, for its input `x` of one image."""
    found = 0

    def add(layer: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal found
        if isinstance(layer, nn.Conv2d):
            positions = out.shape[-2] * out.shape[-1]
            found += layer.out_channels * positions * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            found += layer.in_features * layer.out_features

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad(), evaluating(module):
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
