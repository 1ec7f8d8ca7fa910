"""Where the range of an activation is cut: entropy, percentile or the maximum. numpy only.

Source: NVIDIA's calibrators (pytorch-quantization, ModelOpt). Cases that they leave undefined are defined here: NaN
counts as no answer, and without an answer the maximum is used.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from benchmark.deploy.quantization.histogram import Histogram

Array = np.ndarray[Any, Any]
Algorithm = Literal["entropy", "percentile", "max"]

LEVELS = 128
"""The number of magnitudes that INT8 can distinguish; entropy's first candidate keeps as many bins."""
MOST_CLIPPED = 0.03
"""An answer of entropy that would clip more than this share of the values is rejected: where all values lie far from
zero they fall into one bin, and the divergence says nothing. Ordinary activations lose less than one percent."""


ROUNDING = 1e-12
"""Nats: a smaller divergence counts as zero."""


class Threshold(NamedTuple):
    """The range kept is [-amax, amax]; `clipped` is the share of values beyond it.

    `algorithm` is the one that was really used; `reason` says why where it is not the one that was asked for.
    """

    amax: float
    algorithm: Algorithm
    clipped: float
    reason: str


def choose(histogram: Histogram, algorithm: Algorithm, percentile: float = 99.99) -> Threshold:
    """The threshold of a histogram. Falls back to the maximum, with the reason, where entropy has no answer."""
    if algorithm == "max" or histogram.total == 0 or histogram.amax == 0:
        return Threshold(histogram.amax, "max", 0.0, "" if algorithm == "max" else "every value is zero")
    if algorithm == "percentile":
        kept = percentile_bin(histogram.counts, percentile)
        if kept == 0:  # its left edge is zero: only zeros would be kept
            return Threshold(histogram.amax, "max", 0.0, f"{percentile:g} % of the values lie in the first bin")
        return _cut(histogram, kept, algorithm)
    best, reason = entropy_bin(histogram.counts)
    if not reason:
        found = _cut(histogram, best, algorithm)
        if found.clipped <= MOST_CLIPPED:
            return found
        reason = f"entropy would clip {100 * found.clipped:.1f} % of the values"
    return Threshold(histogram.amax, "max", 0.0, reason)


def _cut(histogram: Histogram, kept: int, algorithm: Algorithm) -> Threshold:
    beyond = int(histogram.counts[kept:].sum()) / histogram.total
    return Threshold(float(histogram.edges[kept]), algorithm, beyond, "")


def percentile_bin(counts: Array, percentile: float) -> int:
    """The bin at which `percentile` percent of all values are reached.

    The range ends at the bin's left edge, so that even 99.999 stays below the maximum.
    """
    reached = np.cumsum(counts / counts.sum())
    return min(int(np.searchsorted(reached, percentile / 100)), len(counts) - 1)


def entropy_bin(counts: Array) -> tuple[int, str]:
    """How many bins to keep, by the smallest divergence (on a tie, the most bins), or 0 and why there is no answer."""
    if len(counts) < LEVELS:
        return 0, f"entropy needs {LEVELS} bins and has {len(counts)}"
    divergence = divergences(counts)
    if not np.isfinite(divergence).any():
        return 0, "no range has a finite divergence"
    last = len(divergence) - 1 - int(np.argmin(divergence[::-1]))
    return LEVELS + last, ""


def divergences(counts: Array) -> Array:
    """KL(P, Q) in nats for keeping the first i of the bins, i = 128 .. bins; infinite where it has no value.

    P is the kept part with everything beyond added to its last bin. Q is the kept part alone in 128 levels: each
    level's count is spread over those of its bins that are not empty. The spike at zero counts as much as its
    neighbour. All sums come from running totals of whole numbers, so they are exact.
    """
    held = counts.astype(np.float64)
    held[0] = held[1]
    total = held.sum()
    if total == 0:
        return np.full(len(held) - LEVELS + 1, np.inf)
    kept = np.arange(LEVELS, len(held) + 1)
    # level l of candidate i holds bins k with floor(128 k / i) = l
    ends = -(-np.arange(LEVELS + 1) * kept[:, None] // LEVELS)
    sums, used = _running(held), _running(held > 0)
    level_sums, level_used = np.diff(sums[ends]), np.diff(used[ends])
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log(level_sums / level_used) - np.log(sums[kept])[:, None]  # ln Q in each level
        entropy = _running(np.where(held > 0, held * np.log(held), 0.0))
        last, beyond = held[kept - 1], total - sums[kept]
        end = last + beyond  # P's last bin, in counts
        own = entropy[kept - 1] + np.where(end > 0, end * np.log(end), 0.0)
        cross = np.where(level_sums > 0, level_sums * spread, 0.0).sum(1) + np.where(
            beyond > 0, beyond * spread[:, -1], 0.0
        )
        found = (own - cross) / total - np.log(total)
    found = np.where(np.abs(found) < ROUNDING, 0.0, found)  # a tie must be exact, so that the largest candidate is kept
    impossible = ((last == 0) & (beyond > 0)) | (sums[kept] == 0)
    return np.where(impossible | np.isnan(found), np.inf, found)


def _running(values: Array) -> Array:
    """Sums of the first n values, n = 0 .. all."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
