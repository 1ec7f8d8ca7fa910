"""P-MB: a network that widens at every block (PyramidNet's rule), whose blocks are MBConv operations.

This is our reconstruction of a space that the paper does not publish ("PyramidNet with modifications"); see
docs/nas.md. Sources of the parts: Han et al. 2017 (PyramidNet), Cai et al. 2019 (ProxylessNAS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

MBCONVS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
"""Kernel and expansion of the six MBConv operations, in the order of the architecture parameters."""

ZERO = "zero"
"""No operation: the block is only its shortcut. Possible at stride 1 only."""

Body = Callable[[int, int, int, int], nn.Module | None]
"""The body beside a block's shortcut, given the block's number, input width, width and stride; None for no body."""


class ConvNorm(nn.Module):
    """A convolution without bias, then BN."""

    def __init__(self, conv: nn.Conv2d, bn_eps: float) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels, eps=bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the two layers."""
        return self.bn(self.conv(x))  # type: ignore[no-any-return] # untyped in torch


class MBConv(nn.Module):
    """1x1 to the expanded width, depthwise k x k, 1x1 to the block's width; BN after each, ReLU6 after two.

    The expansion multiplies the width of the input.
    """

    def __init__(self, op: str, into: int, out: int, stride: int, bn_eps: float) -> None:
        super().__init__()
        kernel, wide = int(op[1]), into * int(op[3])
        self.expand = ConvNorm(nn.Conv2d(into, wide, 1, bias=False), bn_eps)
        self.dw = ConvNorm(nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False), bn_eps)
        self.pw = ConvNorm(nn.Conv2d(wide, out, 1, bias=False), bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[n, into, h, w] to [n, out, h/stride, w/stride]."""
        x = functional.relu6(self.dw(functional.relu6(self.expand(x))))
        return self.pw(x)  # type: ignore[no-any-return] # untyped in torch


def candidates(stride: int) -> tuple[str, ...]:
    """The operations that a block of this stride chooses from."""
    return (*MBCONVS, ZERO) if stride == 1 else MBCONVS


def operation(op: str, into: int, out: int, stride: int, bn_eps: float) -> nn.Module | None:
    """An operation by its name; None for 'zero'. Raises ValueError where a block of this stride does not have it."""
    if op not in candidates(stride):
        raise ValueError(
            f"{op!r} is no operation of a block of stride {stride}; known: {', '.join(candidates(stride))}"
        )
    return None if op == ZERO else MBConv(op, into, out, stride, bn_eps)


class Block(nn.Module):
    """Shortcut + body. The shortcut is the input, averaged over 2 x 2 pixels at stride 2, with zero channels
    appended."""

    def __init__(self, body: nn.Module | None, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.stride = stride
        self.more = out - into

    def forward(self, x: Tensor) -> Tensor:
        """[n, into, h, w] to [n, out, h/stride, w/stride]."""
        shortcut = functional.avg_pool2d(x, 2) if self.stride == 2 else x
        if self.more:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return shortcut if self.body is None else shortcut + self.body(x)


class WideningNetwork(nn.Module):
    """Stem (3x3, BN, ReLU6), blocks, and a head (BN, ReLU, global average pooling, linear). `body` makes the inner part
    of each block, both in a derived network and in a supernet."""

    def __init__(self, shape: Shape, classes: int, body: Body) -> None:
        super().__init__()
        self.stem = ConvNorm(nn.Conv2d(3, shape.stem, 3, padding=1, bias=False), shape.bn_eps)
        into = (shape.stem, *shape.widths[:-1])
        self.blocks = nn.ModuleList(
            Block(body(number, narrow, width, stride), narrow, width, stride)
            for number, (narrow, width, stride) in enumerate(zip(into, shape.widths, shape.strides, strict=True))
        )
        self.head = nn.Module()
        self.head.bn = nn.BatchNorm2d(shape.widths[-1], eps=shape.bn_eps)
        self.classifier = nn.Linear(shape.widths[-1], classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, h, w]."""
        x = functional.relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        x = functional.relu(self.head.bn(x))  # type: ignore[operator] # nn.Module's attributes are untyped
        return self.classifier(x.mean((2, 3)))  # type: ignore[no-any-return] # same


class Shape:
    """Widths and strides of the blocks, the stem's width, and the epsilon of all batch norms."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], stem: int, bn_eps: float) -> None:
        if len(widths) != len(strides) or any(b < a for a, b in zip((stem, *widths), widths, strict=False)):
            raise ValueError("widths must never fall from the stem on, and every block needs a width and a stride")
        self.widths, self.strides, self.stem, self.bn_eps = list(widths), list(strides), stem, bn_eps


def initialise(network: nn.Module) -> None:
    """Draw initial weights: convolutions from N(0, 2 / (k k out / groups)), linear weights uniformly within
    +- 1 / sqrt(in), biases zero.

    ProxylessNAS's search code does not divide by the groups by default, which gives a depthwise convolution a tenth of
    the spread. Its authors' trainer for this kind of network does divide.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels / layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)


def pmb(  # noqa: PLR0913 # the arguments are the artifact's own words: a flat list of plain data
    ops: Sequence[str],
    widths: Sequence[int],
    strides: Sequence[int],
    classes: int,
    stem: int = 16,
    bn_eps: float = 1e-3,
) -> WideningNetwork:
    """The network whose block number b has operation `ops[b]`, width `widths[b]` and stride `strides[b]`.

    Raises ValueError where the three do not fit together.
    """
    if len(ops) != len(widths):
        raise ValueError(f"{len(widths)} blocks need {len(widths)} operations, not {len(ops)}")

    def body(number: int, into: int, out: int, stride: int) -> nn.Module | None:
        return operation(ops[number], into, out, stride, bn_eps)

    return WideningNetwork(Shape(widths, strides, stem, bn_eps), classes, body)
