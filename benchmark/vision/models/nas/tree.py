"""P-Tree: PyramidNet whose blocks are trees of chosen operations, the space of ProxylessNAS's CIFAR-10 network.

Sources: Cai et al. 2019 (ProxylessNAS) and 2018 (path-level search), according to the configuration they published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.vision.models.nas.pmb import initialise

OPS = ("sep3", "sep5", "sep7", "dil3", "avg3", "max3", "id")
"""The operations of an edge, in the order of the architecture parameters."""

EDGES = (
    *(f"L2_{i}{j}" for i in "01" for j in "01"),
    *(f"L3_{i}{j}{m}" for i in "01" for j in "01" for m in "01"),
)
"""The twelve edges of a tree that a search decides: in half i the two edges at depth 2, and two leaves below each."""

Edge = Callable[[int, str, int], nn.Module]
"""The module on an edge, given the block's number, the edge's name and the channels."""


class DepthwiseSeparable(nn.Module):
    """BN, ReLU, depthwise k x k, pointwise: nothing between the two convolutions."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        padding = dilation * (kernel // 2)
        self.dw = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)
        self.pw = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to the same."""
        return self.pw(self.dw(functional.relu(self.bn(x))))  # type: ignore[no-any-return] # untyped in torch


def operation(op: str, channels: int) -> nn.Module:
    """One of `OPS`, all of stride 1. Averages do not count padding."""
    if op not in OPS:
        raise ValueError(f"{op!r} is not an operation of a tree; known: {', '.join(OPS)}")
    if op == "id":
        return nn.Identity()
    if op == "avg3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    if op == "max3":
        return nn.MaxPool2d(3, 1, 1)
    return DepthwiseSeparable(channels, int(op[3]), 2 if op.startswith("dil") else 1)


class NormConv(nn.Module):
    """BN, ReLU unless `active` is off, convolution without bias: the pre-activation order."""

    def __init__(self, conv: nn.Conv2d, active: bool = True) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(conv.in_channels)
        self.conv = conv
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """The output of the three layers."""
        x = self.bn(x)
        return self.conv(functional.relu(x) if self.active else x)  # type: ignore[no-any-return] # untyped in torch


class Half(nn.Module):
    """One branch of the root: x + BN(sum over j and m of leaf ijm(edge ij(x)))."""

    def __init__(self, number: int, channels: int, edge: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({name: edge(name) for name in EDGES if name[3] == str(number)})
        self.bn = nn.BatchNorm2d(channels)
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to the same."""
        leaves = []
        for j in "01":
            inner = self.edges[f"L2_{self.number}{j}"](x)
            leaves += [self.edges[f"L3_{self.number}{j}{m}"](inner) for m in "01"]
        return self.bn(sum(leaves)) + x  # type: ignore[no-any-return] # untyped in torch


class TreeBlock(nn.Module):
    """1x1 to the width, the tree (grouped 3x3 root, two halves), 1x1 to four widths, BN; plus the shortcut."""

    def __init__(self, into: int, width: int, stride: int, edge: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.entry = NormConv(nn.Conv2d(into, width, 1, bias=False), active=False)
        self.root = NormConv(nn.Conv2d(width, 2 * width, 3, stride, 1, groups=2, bias=False))
        self.halves = nn.ModuleList(Half(number, width, edge) for number in range(2))
        self.exit = NormConv(nn.Conv2d(width, 4 * width, 1, bias=False))
        self.final_bn = nn.BatchNorm2d(4 * width)
        self.stride = stride
        self.more = 4 * width - into

    def forward(self, x: Tensor) -> Tensor:
        """[n, into, h, w] to [n, 4 width, h/stride, w/stride]."""
        first, second = _shuffled(self.root(self.entry(x))).chunk(2, 1)
        inner = self.halves[0](first) + self.halves[1](second)
        shortcut = functional.avg_pool2d(x, 2) if self.stride == 2 else x
        if self.more:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return shortcut + self.final_bn(self.exit(inner))  # type: ignore[no-any-return] # untyped in torch


def _shuffled(x: Tensor) -> Tensor:
    """Channels of the root's two groups, interleaved, because otherwise each half would see only one group."""
    n, channels, height, width = x.shape
    return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


class TreeNetwork(nn.Module):
    """Stem, three stages of tree blocks, and a head (BN, ReLU, global average pooling, linear)."""

    def __init__(self, widths: Sequence[int], classes: int, stem: int, edge: Edge) -> None:
        super().__init__()
        if len(widths) % 3:
            raise ValueError(f"three stages need the same number of blocks each, not {len(widths)} in all")
        self.stem = nn.Module()
        self.stem.conv = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stem.bn = nn.BatchNorm2d(stem)
        into = (stem, *(4 * width for width in widths))
        entries = {len(widths) // 3, 2 * len(widths) // 3}
        self.blocks = nn.ModuleList(
            TreeBlock(into[number], width, 2 if number in entries else 1, _edges_of(edge, number, width))
            for number, width in enumerate(widths)
        )
        self.head = nn.Module()
        self.head.bn = nn.BatchNorm2d(4 * widths[-1])
        self.classifier = nn.Linear(4 * widths[-1], classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, 32, 32]."""
        x: Tensor = self.stem.bn(self.stem.conv(images))  # type: ignore[operator] # nn.Module's attributes are untyped
        for block in self.blocks:
            x = block(x)
        x = functional.relu(self.head.bn(x))  # type: ignore[operator] # same
        return self.classifier(torch.mean(x, (2, 3)))  # type: ignore[no-any-return] # same


def _edges_of(edge: Edge, number: int, width: int) -> Callable[[str], nn.Module]:
    return lambda name: edge(number, name, width)


def tree(ops: Sequence[Sequence[str]], widths: Sequence[int], classes: int, stem: int = 16) -> TreeNetwork:
    """The network whose block number t has width `widths[t]` and, on its edges in the order of `EDGES`, the twelve
    operations `ops[t]`. Raises ValueError where they do not fit together."""
    if len(ops) != len(widths) or any(len(own) != len(EDGES) for own in ops):
        raise ValueError(f"{len(widths)} blocks need {len(widths)} times {len(EDGES)} operations")

    def edge(block: int, name: str, channels: int) -> nn.Module:
        return operation(ops[block][EDGES.index(name)], channels)

    return TreeNetwork(widths, classes, stem, edge)
