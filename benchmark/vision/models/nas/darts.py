"""Networks of DARTS: cells that repeat a genotype, and the operations of its space.

Source: Liu, Simonyan and Yang 2019 (DARTS), according to its published code. Layer names: `dw` is a depthwise
convolution, `pw` a pointwise one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The operations of an edge, in the order of the architecture parameters' columns."""

NODES = 4
"""Intermediate nodes of a cell; its inputs are nodes 0 and 1."""

Drop = Callable[[str, Tensor], Tensor]
"""Drop-path: given the name of an operation ('cells.3.op2') and its output, the output with some samples dropped."""


class Separable(nn.Module):
    """ReLU, depthwise k x k, pointwise, BN: twice. The first depthwise convolution has the stride."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__()
        same: dict[str, Any] = {"padding": kernel // 2, "groups": channels, "bias": False}
        self.dw1 = nn.Conv2d(channels, channels, kernel, stride, **same)
        self.pw1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, affine=affine)
        self.dw2 = nn.Conv2d(channels, channels, kernel, 1, **same)
        self.pw2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c, h/stride, w/stride]."""
        x = self.bn1(self.pw1(self.dw1(functional.relu(x))))
        return self.bn2(self.pw2(self.dw2(functional.relu(x))))  # type: ignore[no-any-return] # untyped in torch


class Dilated(nn.Module):
    """ReLU, depthwise k x k with dilation 2, pointwise, BN."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__()
        padding = kernel - 1  # keeps the size: a kernel of dilation 2 spans 2 k - 1 pixels
        self.dw = nn.Conv2d(channels, channels, kernel, stride, padding, dilation=2, groups=channels, bias=False)
        self.pw = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, c, h/stride, w/stride]."""
        return self.bn(self.pw(self.dw(functional.relu(x))))  # type: ignore[no-any-return] # untyped in torch


class FactorisedReduction(nn.Module):
    """Halves the size without losing pixels: two strided 1x1 convolutions, on the even pixels and on the odd ones."""

    def __init__(self, into: int, out: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out // 2, 1, stride=2, bias=False)
        self.conv2 = nn.Conv2d(into, out - out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[n, into, h, w] to [n, out, h/2, w/2]; h and w even."""
        x = functional.relu(x)
        halves = [self.conv1(x), self.conv2(x[:, :, 1:, 1:])]
        return self.bn(torch.cat(halves, 1))  # type: ignore[no-any-return] # untyped in torch


class Pointwise(nn.Module):
    """ReLU, 1x1 convolution, BN, for a cell's input that already has the cell's size."""

    def __init__(self, into: int, out: int, affine: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[n, into, h, w] to [n, out, h, w]."""
        return self.bn(self.conv(functional.relu(x)))  # type: ignore[no-any-return] # untyped in torch


class Nothing(nn.Module):
    """The operation `none`: zeros, used only in the search."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the same size as the output of the other operations."""
        return x[:, :, :: self.stride, :: self.stride] * 0


def operation(name: str, channels: int, stride: int, searching: bool = False) -> nn.Module:
    """One of `PRIMITIVES` on `channels` channels, at stride 1 or 2.

    While `searching`, batch norms are not affine, and one follows each pool. Averages do not count padding.
    """
    affine = not searching
    if name == "none" and searching:
        return Nothing(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorisedReduction(channels, channels, affine)
    kind, _, size = name.rpartition("_")
    kernel = int(size[0]) if size[:1].isdigit() else 0
    if kind in ("max_pool", "avg_pool") and name in PRIMITIVES:
        pool: nn.Module = nn.MaxPool2d(kernel, stride, kernel // 2)
        if kind == "avg_pool":
            pool = nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if searching else pool
    if kind == "sep_conv" and name in PRIMITIVES:
        return Separable(channels, kernel, stride, affine)
    if kind == "dil_conv" and name in PRIMITIVES:
        return Dilated(channels, kernel, stride, affine)
    raise ValueError(f"{name!r} is not an operation of a cell; known: {', '.join(PRIMITIVES[1:])}")


class Inputs(nn.Module):
    """The first step of a cell: brings its two inputs to its width and size."""

    def __init__(self, into: tuple[int, int], channels: int, after_reduction: bool, affine: bool) -> None:
        super().__init__()
        older, newer = into
        shrink = FactorisedReduction if after_reduction else Pointwise
        self.pre0 = shrink(older, channels, affine)
        self.pre1 = Pointwise(newer, channels, affine)

    def forward(self, older: Tensor, newer: Tensor) -> list[Tensor]:
        """The states of nodes 0 and 1."""
        return [self.pre0(older), self.pre1(newer)]


class Cell(nn.Module):
    """A cell of a genotype: each intermediate node adds up two operations on earlier nodes.

    `pairs` are (operation, node it reads), two per node; `concat` names the nodes whose channels the cell outputs.
    """

    def __init__(self, pairs: Sequence[tuple[str, int]], concat: Sequence[int], inputs: Inputs, place: Place) -> None:
        super().__init__()
        self.inputs = inputs
        self.reads = [node for _, node in pairs]
        self.concat = list(concat)
        self.name = place.name
        self.ops = nn.ModuleList(
            operation(name, place.channels, 2 if place.reduction and node < 2 else 1) for name, node in pairs
        )

    def forward(self, older: Tensor, newer: Tensor, drop: Drop | None = None) -> Tensor:
        """The cell's output; `drop` acts on the output of every operation except an identity."""
        states = self.inputs(older, newer)
        for first in range(0, len(self.ops), 2):
            states.append(sum(self._edge(number, states, drop) for number in (first, first + 1)))
        return torch.cat([states[node] for node in self.concat], 1)

    def _edge(self, number: int, states: Sequence[Tensor], drop: Drop | None) -> Tensor:
        op = self.ops[number]
        out: Tensor = op(states[self.reads[number]])
        return out if drop is None or isinstance(op, nn.Identity) else drop(f"{self.name}.op{number}", out)


class Place:
    """The place of a cell: its name, width, kind, input channels, and whether a reduction cell comes before it."""

    def __init__(self, number: int, cells: int, channels: int) -> None:
        self.name = f"cells.{number}"
        reductions = reduction_cells(cells)
        passed = sum(at <= number for at in reductions)
        self.channels = channels * 2**passed
        self.reduction = number in reductions
        self.after_reduction = number - 1 in reductions
        self.into = (_given(number - 2, cells, channels), _given(number - 1, cells, channels))


def reduction_cells(cells: int) -> tuple[int, ...]:
    """The numbers of the cells that halve the size: at one third and at two thirds."""
    return tuple(sorted({cells // 3, 2 * cells // 3}))


def _given(number: int, cells: int, channels: int) -> int:
    """Output channels of a cell; the stem counts as two cells before the first."""
    return 3 * channels if number < 0 else NODES * Place(number, cells, channels).channels


class Stem(nn.Module):
    """3x3 convolution of the image, BN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, 32, 32] to [n, channels, 32, 32]."""
        return self.bn(self.conv(images))  # type: ignore[no-any-return] # untyped in torch


class CellNetwork(nn.Module):
    """A stem, cells, global average pooling and a classifier.

    `auxiliary_at` is the cell whose output an auxiliary head reads while training: the second reduction.
    """

    def __init__(self, genotype: Mapping[str, Any], channels: int, cells: int, classes: int) -> None:
        super().__init__()
        places = [Place(number, cells, channels) for number in range(cells)]
        self.stem = Stem(3 * channels)
        self.cells = nn.ModuleList(_cell(genotype, place) for place in places)
        self.auxiliary_at = 2 * cells // 3
        self.auxiliary_channels = NODES * places[self.auxiliary_at].channels
        self.classifier = nn.Linear(NODES * places[-1].channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, 32, 32]."""
        return self.answers(images)[0]

    def answers(self, images: Tensor, drop: Drop | None = None) -> tuple[Tensor, Tensor]:
        """Logits, and the output of the cell that an auxiliary head reads, with drop-path where it is given."""
        older = newer = self.stem(images)
        tapped = newer
        for number, cell in enumerate(self.cells):
            older, newer = newer, cell(older, newer, drop)
            if number == self.auxiliary_at:
                tapped = newer
        return self.classifier(newer.mean((2, 3))), tapped


def _cell(genotype: Mapping[str, Any], place: Place) -> Cell:
    kind = "reduce" if place.reduction else "normal"
    pairs = [(str(name), int(node)) for name, node in genotype[kind]]
    inputs = Inputs(place.into, place.channels, place.after_reduction, affine=True)
    return Cell(pairs, genotype[f"{kind}_concat"], inputs, place)


def darts(genotype: Mapping[str, Any], channels: int, cells: int, classes: int) -> CellNetwork:
    """The evaluation network of a genotype {normal, normal_concat, reduce, reduce_concat}, as the search writes it.

    Source: DARTS's NetworkCIFAR without its auxiliary head, which belongs to training. Raises ValueError for an invalid
    genotype.
    """
    _check(genotype)
    return CellNetwork(genotype, channels, cells, classes)


def _check(genotype: Mapping[str, Any]) -> None:
    for kind in ("normal", "reduce"):
        pairs, concat = genotype.get(kind), genotype.get(f"{kind}_concat")
        if not isinstance(pairs, Sequence) or not isinstance(concat, Sequence) or len(pairs) != 2 * NODES:
            raise ValueError(f"a genotype needs {2 * NODES} pairs in {kind!r}, and the nodes of {kind}_concat")
        for number, (_, node) in enumerate(pairs):
            if not 0 <= node < 2 + number // 2:
                raise ValueError(f"pair {number} of {kind!r} reads node {node}, which does not come before it")
        if len(concat) != NODES or not all(0 <= node < 2 + NODES for node in concat):
            raise ValueError(f"{kind}_concat must name {NODES} nodes from 0 to {1 + NODES}, not {list(concat)}")
