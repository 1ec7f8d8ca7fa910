"""Genotypes of DARTS: the two published ones, and how to derive one from architecture parameters. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NONE = 0
"""The column of the operation `none`."""

NODES = 4


def _genotype(normal: Sequence[tuple[str, int]], reduce: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A genotype as data; all four intermediate nodes are the cell's output."""
    concat = list(range(2, 2 + NODES))
    cells = {"normal": [list(pair) for pair in normal], "reduce": [list(pair) for pair in reduce]}
    return {**cells, "normal_concat": concat, "reduce_concat": concat}


def _pairs(text: str) -> list[tuple[str, int]]:
    """The (operation, node) pairs of a short text such as 'sep3:0 skip:1'."""
    full = {
        "sep3": "sep_conv_3x3",
        "dil3": "dil_conv_3x3",
        "skip": "skip_connect",
        "max3": "max_pool_3x3",
        "avg3": "avg_pool_3x3",
    }
    return [(full[name], int(node)) for name, _, node in (word.partition(":") for word in text.split())]


PUBLISHED = {
    "DARTS_V1": _genotype(
        _pairs("sep3:1 sep3:0 skip:0 sep3:1 skip:0 sep3:1 sep3:0 skip:2"),
        _pairs("max3:0 max3:1 skip:2 max3:0 max3:0 skip:2 skip:2 avg3:0"),
    ),
    "DARTS_V2": _genotype(
        _pairs("sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 skip:0 skip:0 dil3:2"),
        _pairs("max3:0 max3:1 skip:2 max3:1 max3:0 skip:2 skip:2 max3:1"),
    ),
}
"""The cells that the authors found on CIFAR-10: V1 by first-order, V2 by second-order gradients."""


def derive(
    normal: Sequence[Sequence[float]], reduce: Sequence[Sequence[float]], primitives: Sequence[str]
) -> dict[str, Any]:
    """The genotype of two tables of architecture parameters [14, 8].

    Each edge takes its strongest operation other than `none`. Each node keeps the two edges whose operation has the
    largest weight, the stronger first. A weight is the softmax over an edge's operations. `none` takes its share in the
    softmax, but cannot be chosen. On a tie the lower number wins. Source: DARTS, section 2.4, according to its code.
    """
    return _genotype(_cell(normal, primitives), _cell(reduce, primitives))


def _cell(table: Sequence[Sequence[float]], primitives: Sequence[str]) -> list[tuple[str, int]]:
    rows = [softmax(row) for row in table]
    pairs: list[tuple[str, int]] = []
    first = 0
    for node in range(NODES):
        edges = rows[first : first + 2 + node]
        first += len(edges)
        best = [max((number for number in range(len(row)) if number != NONE), key=row.__getitem__) for row in edges]
        order = sorted(range(len(edges)), key=lambda edge: -edges[edge][best[edge]])
        pairs += [(primitives[best[edge]], edge) for edge in order[:2]]
    return pairs


def softmax(row: Sequence[float]) -> list[float]:
    """The probabilities of an edge's operations, from its parameters."""
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / math.fsum(powers) for power in powers]
