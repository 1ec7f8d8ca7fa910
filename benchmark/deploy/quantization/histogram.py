"""The values an activation takes, as a histogram of their magnitudes that grows with its range. numpy only.

Source: NVIDIA's calibrator (pytorch-quantization, ModelOpt), its torch mode: 2,048 bins of the first batch's range in
float32; a later batch with a larger maximum keeps the width of a bin and appends bins.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BINS = 2048
MOST_BINS = 65_536
"""More are merged in pairs: a first batch next to zero must not order billions of bins."""

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
        largest = magnitudes.max()  # NaN and infinity come through
        if not np.isfinite(largest):
            raise ValueError("a value is NaN or infinite")
        self.amax = max(self.amax, float(largest))
        if self.edges[-1] == 0 and largest > 0:
            self._begin(largest)
        elif largest > self.edges[-1]:
            self._grow(largest)
        self.counts += self._counted(magnitudes)

    def _begin(self, largest: np.float32) -> None:
        """The first range; zeros that were seen before stay in the first bin."""
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
        # in float32, as the original: single counts move
        index = (magnitudes * np.float32(bins) / top).astype(np.int64)
        return np.bincount(np.minimum(index, bins - 1), minlength=bins)
