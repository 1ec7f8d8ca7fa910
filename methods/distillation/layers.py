"""The few operations and layers that several papers share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from methods.distillation.term import Shape

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(formula: Callable[P, R]) -> Callable[P, R]:
    """Make a formula compute outside autocast, on float32 copies of half-precision tensors.

    Autocast would run the matrix products and means of SP, NST, CRD, DIST and standardised logits in half precision.
    """

    @functools.wraps(formula)
    def careful(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kind = tensors[0].device.type
        if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return formula(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            widened, named = tree_map(_widened, (args, kwargs))
            return formula(*widened, **named)

    return careful


def _widened(leaf: object) -> object:
    half = isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)
    return leaf.float() if half else leaf  # type: ignore[attr-defined] # mypy does not follow `half`


def match(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, C, H, W] of the same size: the larger is average-pooled to the smaller."""
    ours, theirs = student.shape[2], teacher.shape[2]
    if ours > theirs:
        return functional.adaptive_avg_pool2d(student, (theirs, theirs)), teacher
    if ours < theirs:
        return student, functional.adaptive_avg_pool2d(teacher, (ours, ours))
    return student, teacher


def square_map(maps: Tensor) -> Tensor:
    """The mean square over the channels of maps [B, C, H, W], flattened and of unit norm: [B, HW]."""
    return functional.normalize(maps.pow(2).mean(1).flatten(1))


def inner_products(x: Tensor, y: Tensor, broadcast: bool) -> Tensor:
    """All <x_i, y_j> of vectors x [B, n, d] and y [B, m, d]: [B, n, m].

    With `broadcast` it makes the tensor of [B, n, m, d] elements as in the original; otherwise it uses a batched matrix
    product.
    """
    if broadcast:
        return (x.unsqueeze(2) * y.unsqueeze(1)).sum(-1)
    return x @ y.mT


class ConvReg(nn.Sequential):
    """A convolution (with bias) from a student's map to the teacher's shape, then batch norm and, with `relu`, a ReLU.

    If the student's map is twice as large, it is a 3x3 convolution with stride 2; if half as large, a transposed 4x4
    with stride 2; if at least as large, a plain convolution with a kernel just large enough. Raises ValueError for any
    other pair of sizes. Source: RepDistiller's regressor of FitNets.
    """

    def __init__(self, student: Shape, teacher: Shape, relu: bool = True) -> None:
        (c_in, ours, _), (c_out, theirs, _) = student, teacher
        if ours == 2 * theirs:
            conv: nn.Module = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)
        elif 2 * ours == theirs:
            conv = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)
        elif ours >= theirs:
            conv = nn.Conv2d(c_in, c_out, 1 + ours - theirs)
        else:
            raise ValueError(
                f"no convolution turns a {ours}x{ours} map into a {theirs}x{theirs} map: choose another pair"
            )
        super().__init__(conv, nn.BatchNorm2d(c_out), *([nn.ReLU()] if relu else []))
