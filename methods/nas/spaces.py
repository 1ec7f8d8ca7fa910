"""Search spaces as data: their edges, the operations of each edge, and the builder of a network. Needs no torch."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from typing import Any

from benchmark.plan.task import Config, Model

MBCONVS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
TREE_OPS = ("sep3", "sep5", "sep7", "dil3", "avg3", "max3", "id")
TREE_EDGES = 12


class Space(Config):
    """A search space.

    `model` is the builder and the arguments that all its networks share. `edges` holds the operations that each edge
    chooses from, in the order of the builder's `ops`; each `group` edges make one list in `ops`. `supernet` names the
    function (`module:function`) that builds the network with all operations.
    """

    model: Model
    edges: tuple[tuple[str, ...], ...]
    group: int = 1
    supernet: str

    def architecture(self, ops: Sequence[str]) -> dict[str, Any]:
        """The builder's further arguments, given one operation per edge."""
        if self.group == 1:
            return {"ops": list(ops)}
        return {"ops": [list(ops[first : first + self.group]) for first in range(0, len(ops), self.group)]}

    def draw(self, seed: int, number: int) -> list[str]:
        """Architecture `number` of those that a seed draws: on every edge each operation is equally likely."""
        generator = random.Random(f"architecture/{seed}/{number}")
        return [generator.choice(ops) for ops in self.edges]


PMB_SIZES = {"xs": (24, 2, 8), "s": (84, 6, 16), "m": (112, 6, 16)}
"""Sizes of P-MB: the width added to the stem's over all blocks, the blocks per stage, and the stem's width."""


def pmb(size: str) -> Space:
    """P-MB: three stages of MBConv blocks, each block wider than the last by PyramidNet's rule, in multiples of 4.

    Sizes s and m are the benchmark's, xs is for CPUs. Raises ValueError for another size.
    """
    alpha, blocks, stem = _size(size, PMB_SIZES, "pmb")
    count = 3 * blocks
    widths = [4 * round((stem + alpha * number / count) / 4) for number in range(1, count + 1)]
    strides = [2 if number in (blocks, 2 * blocks) else 1 for number in range(count)]
    kwargs = {"widths": widths, "strides": strides, "stem": stem}
    edges = tuple((*MBCONVS, "zero") if stride == 1 else MBCONVS for stride in strides)
    builder = "benchmark.vision.models.nas.pmb:pmb"
    model = Model(name=f"pmb-{size}", builder=builder, kwargs=kwargs)
    return Space(model=model, edges=edges, supernet="methods.nas.proxyless.supernet:pmb")


TREE_SIZES = {"b2": (24, 2), "b6": (84, 6), "b18": (84, 18)}
"""Sizes of P-Tree: the width added over all blocks, and the blocks per stage."""


def tree(size: str) -> Space:
    """P-Tree: PyramidNet with a tree of operations in every block.

    Size b18 is the original's, b6 has a third of its depth, b2 is for CPUs. Raises ValueError for another size.
    """
    alpha, blocks = _size(size, TREE_SIZES, "tree")
    count = 3 * blocks
    rounded = [round(16 + alpha * number / count) for number in range(1, count + 1)]
    widths = [width - width % 2 for width in rounded]  # the root has two groups
    builder = "benchmark.vision.models.nas.tree:tree"
    model = Model(name=f"tree-{size}", builder=builder, kwargs={"widths": widths})
    edges = (TREE_OPS,) * (TREE_EDGES * count)
    return Space(model=model, edges=edges, group=TREE_EDGES, supernet="methods.nas.proxyless.supernet:tree")


def _size(size: str, known: dict[str, Any], space: str) -> Any:
    if size not in known:
        raise ValueError(f"size={size}: the space {space} has the sizes {', '.join(known)}")
    return known[size]


OURS = ("pmb", "tree")


def space_of(name: str, size: str) -> Space:
    """The space that a command names: one of `OURS`, or a function `module:function` that makes a `Space` of a size.

    Raises ValueError where there is no such space or size.
    """
    if name in OURS:
        return {"pmb": pmb, "tree": tree}[name](size)
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"space={name} is unknown: choose {', '.join(OURS)}, or module:function for your own space")
    try:
        found = getattr(importlib.import_module(module), function)(size)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"space={name}: {error}") from error
    if not isinstance(found, Space):
        raise ValueError(f"space={name} must return a Space, not a {type(found).__name__}")
    return found


def darts(channels: int, cells: int) -> Model:
    """The builder and the arguments that all networks of cells of one size share."""
    builder = "benchmark.vision.models.nas.darts:darts"
    kwargs = {"channels": channels, "cells": cells}
    return Model(name=f"darts-c{channels}-{cells}", builder=builder, kwargs=kwargs)
