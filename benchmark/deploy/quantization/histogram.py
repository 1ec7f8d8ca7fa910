"""A histogram of an activation's magnitudes that grows with their range. numpy only.

Source: NVIDIA's calibrator (pytorch-quantization, ModelOpt), its torch mode: 2,048 bins of the first batch's range in
float32; a later batch with a larger maximum keeps the width of a bin and appends bins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BINS = 2048
MOST_BINS = 65_536
"""More bins than this are merged in pairs: after a first batch close to zero, billions of bins would be needed."""

Array = np.ndarray[Any, Any]


class Histogram:
    """Magnitudes of one tensor, batch by batch.

    `counts` int64 [bins], `edges` float64 [bins + 1], the first edge is 0. `amax` is the largest magnitude of all.
    """

    def __init__(self) -> None:
        self.counts: Array = np.zeros(BINS, dtype=np.int64)
        self.edges: Array = np.zeros(BINS + 1)
        self.amax = 0.0

    @property
    def total(self) -> int:
        """Values seen."""
        return int(self.counts.sum())

    def collect(self, values: Array) -> None:
        """Add a batch of any shape. Raises ValueError where a value is NaN or infinite."""
        magnitudes = np.abs(np.asarray(values, dtype=np.float32)).ravel()
        if not magnitudes.size:
            return
        largest = magnitudes.max()  # max() keeps NaN and infinity
        if not np.isfinite(largest):
            raise ValueError("a value is NaN or infinite")
        self.amax = max(self.amax, float(largest))
        if self.edges[-1] == 0 and largest > 0:
            self._begin(largest)
        elif largest > self.edges[-1]:
            self._grow(largest)
        self.counts += self._counted(magnitudes)

    def _begin(self, largest: np.float32) -> None:
        """Set the first range; earlier zeros stay in the first bin."""
        self.edges = np.linspace(0.0, float(largest), BINS + 1)

    def _grow(self, largest: np.float32) -> None:
        width = np.float32(self.edges[1])
        while largest / width > MOST_BINS:
            self.counts = np.pad(self.counts, (0, len(self.counts) % 2)).reshape(-1, 2).sum(1)
            width *= np.float32(2)
        bins = max(len(self.counts), math.ceil(largest / width))
        self.edges = np.arange(bins + 1) * float(width)
        self.counts = np.concatenate([self.counts, np.zeros(bins - len(self.counts), dtype=np.int64)])

    def _counted(self, magnitudes: Array) -> Array:
        bins, top = len(self.counts), np.float32(self.edges[-1])
        if top == 0:
            return np.bincount([0], weights=[magnitudes.size], minlength=bins).astype(np.int64)
        # in float32 as in the original, because float64 would move single counts
        index = (magnitudes * np.float32(bins) / top).astype(np.int64)
        return np.bincount(np.minimum(index, bins - 1), minlength=bins)
