"""The search network of DARTS: every edge computes all operations and mixes them by its architecture parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.vision.models.nas.darts import NODES, PRIMITIVES, Inputs, Place, Stem, operation
from methods.nas.darts.genotype import derive

EDGES = sum(range(2, 2 + NODES))
"""Edges of a cell: every intermediate node reads both inputs and all nodes before it."""

INITIAL_SPREAD = 1e-3
"""The standard deviation of the normal draw of the first architecture parameters."""


class MixedEdge(nn.ModuleDict):
    """All operations of one edge, in their order; `none` would give zeros, so the sum leaves it out."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__({name: operation(name, channels, stride, searching=True) for name in PRIMITIVES[1:]})

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """The sum of the operations' outputs, weighted by `weights` [8]."""
        parts: list[Tensor] = [weight * op(x) for weight, op in zip(weights[1:], self.values(), strict=True)]
        return sum(parts[1:], parts[0])


class SearchCell(nn.Module):
    """A cell of mixed edges: node by node, the inputs of each in ascending order."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.inputs = Inputs(place.into, place.channels, place.after_reduction, affine=False)
        self.reduction = place.reduction
        self.edges = nn.ModuleList(
            MixedEdge(place.channels, 2 if place.reduction and source < 2 else 1)
            for node in range(NODES)
            for source in range(2 + node)
        )

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor) -> Tensor:
        """The cell's output, given the weights [14, 8] of its edges: the concatenation of all intermediate nodes."""
        states, first = self.inputs(older, newer), 0
        for _ in range(NODES):
            reads = range(len(states))
            states.append(sum(self.edges[first + node](states[node], weights[first + node]) for node in reads))
            first += len(reads)
        return torch.cat(states[2:], 1)


class SearchNetwork(nn.Module):
    """Cells of mixed edges between a stem and a classifier; cells of a kind share their architecture parameters."""

    def __init__(self, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        places = [Place(number, cells, channels) for number in range(cells)]
        self.stem = Stem(3 * channels)
        self.cells = nn.ModuleList(SearchCell(place) for place in places)
        self.classifier = nn.Linear(NODES * places[-1].channels, classes)
        for kind in ("normal", "reduce"):
            drawn = INITIAL_SPREAD * torch.randn(EDGES, len(PRIMITIVES))
            self.register_parameter(f"alphas_{kind}", nn.Parameter(drawn))
        self.alphas_normal: nn.Parameter
        self.alphas_reduce: nn.Parameter

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, 32, 32]."""
        weights = {False: self.alphas_normal.softmax(-1), True: self.alphas_reduce.softmax(-1)}
        older = newer = self.stem(images)
        for cell in self.cells:
            older, newer = newer, cell(older, newer, weights[bool(cell.reduction)])
        return self.classifier(newer.mean((2, 3)))  # type: ignore[no-any-return] # untyped in torch

    def architecture(self) -> list[nn.Parameter]:
        """The architecture parameters: normal, reduce."""
        return [self.alphas_normal, self.alphas_reduce]

    def weights(self) -> dict[str, nn.Parameter]:
        """All other parameters by name."""
        return {name: own for name, own in self.named_parameters() if not name.startswith("alphas_")}

    def genotype(self) -> dict[str, Any]:
        """The genotype that the parameters give now. Waits for the device."""
        return derive(self.alphas_normal.tolist(), self.alphas_reduce.tolist(), PRIMITIVES)

    def tables(self) -> Mapping[str, Tensor]:
        """The architecture parameters by the kind of cell, on the host."""
        return {"normal": self.alphas_normal.detach().cpu(), "reduce": self.alphas_reduce.detach().cpu()}
