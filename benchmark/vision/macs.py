"""What a network costs on paper: parameters and multiply-accumulates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.vision.modes import evaluating


def count(model: nn.Module, size: int = 32) -> tuple[int, int]:
    """Parameters, and MACs of convolution and linear layers for one image [3, size, size]. Works on the meta device
    too; elsewhere it computes, so a stage calls it off the meter.

    Biases, batch norm and pooling count as parameters where they have some, never as MACs: the convention of the
    pruning literature.
    """
    macs = 0

    def add(module: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            positions = out.shape[-2] * out.shape[-1]
            macs += (
                module.out_channels * positions * module.in_channels // module.groups * math.prod(module.kernel_size)
            )
        elif isinstance(module, nn.Linear):
            macs += module.in_features * module.out_features

    hooks = [
        module.register_forward_hook(add) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(p.numel() for p in model.parameters()), macs
