"""Means, intervals and paired comparisons of repeated windows, without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_T975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip  # a table of thirty numbers reads better in rows of ten
Z975 = 1.959964


def t975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` degrees of freedom (exact to four digits; Cornish-Fisher above
    30)."""
    if freedom < 1:
        return math.nan
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z, v = Z975, freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def share_ci95(share: float, count: int) -> float:
    """The longer arm of Wilson's 95 % interval around a share that was seen in `count` draws. NaN without a draw, or
    outside 0 to 1."""
    if count < 1 or not 0 <= share <= 1:
        return math.nan
    z2 = Z975**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z975 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return half + abs(centre - share)


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % interval (NaN below two values)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half_width

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside; False where the interval is unknown."""
        return self.low <= value <= self.high


def mean_ci95(values: Sequence[float]) -> Interval:
    """Mean +- t(0.975, n-1) s / sqrt(n). NaN in, NaN out: a lost window must be dropped by name, not by accident."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, t975(n - 1) * math.sqrt(variance / n), n)


def paired_ratio_ci95(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The ratio a / b of interleaved windows, from differences of logarithms of neighbours: slow drift and board gain
    cancel.

    `a` and `b` are positive and of one length (window i of A was measured beside window i of B); ValueError otherwise.
    """
    if len(a) != len(b):
        raise ValueError(f"paired windows must come in pairs, not {len(a)} and {len(b)}")
    if any(value <= 0 for value in (*a, *b)):
        raise ValueError("a ratio needs positive energies")
    logs = mean_ci95([math.log(x / y) for x, y in zip(a, b, strict=True)])
    ratio = math.exp(logs.mean) if not math.isnan(logs.mean) else math.nan
    return Interval(ratio, ratio * math.sinh(logs.half_width) if logs.n > 1 else math.nan, logs.n)


def interleave(order_a_first: bool, pairs: int) -> tuple[str, ...]:
    """The order of windows that cancels a linear drift: A B, B A, A B, ... ('a' and 'b'), `pairs` of each."""
    words: list[str] = []
    for number in range(pairs):
        first = (number % 2 == 0) == order_a_first
        words += ["a", "b"] if first else ["b", "a"]
    return tuple(words)


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile by linear interpolation between order statistics; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
