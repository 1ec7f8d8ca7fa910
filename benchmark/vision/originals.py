"""How the published training loops load, test and read back, according to their sources; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmark.plan.task import OriginalName, Recipe


class Original(NamedTuple):
    """How an original loop loads, tests and reads back.

    With `every_step` it reads loss, top-1 and top-5 of every step; otherwise the loss of every hundredth step.
    """

    workers: int
    pinned: bool
    test_batch: int
    every_step: bool
    cudnn_benchmark: bool


NNI = Original(workers=1, pinned=True, test_batch=128, every_step=False, cudnn_benchmark=False)
"""NNI's pruning example (v2.1 to v2.4)."""
REPDISTILLER = Original(workers=8, pinned=False, test_batch=32, every_step=True, cudnn_benchmark=True)
"""RepDistiller at b84f547."""
ORIGINALS: Mapping[OriginalName, Original] = {"nni": NNI, "repdistiller": REPDISTILLER}


def original_of(recipe: Recipe) -> Original:
    """The original training loop of a recipe."""
    return ORIGINALS[recipe.original]
