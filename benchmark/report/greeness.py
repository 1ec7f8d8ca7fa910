"""Greeness, the paper's figure of merit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

TAU = 2.0
"""The paper's exponent in Table 3."""


def greeness(acc_pct: float, tec_wh: float, iec_wh: float, mui: float, tau: float = TAU) -> float:
    """G(MUI) = acc^tau / (MUI * IEC + TEC), in percent^tau per W.h (Li et al., 2021, eq. 1).

    Accuracy in percent: the paper's text says 0 to 1, but only percent gives the numbers of its tables. NaN where an
    input is NaN, and where no meter saw anything spent, for nothing can be divided by that. Raises ValueError on a
    negative input.
    """
    values = {"acc_pct": acc_pct, "tec_wh": tec_wh, "iec_wh": iec_wh, "mui": mui}
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if acc_pct > 100:
        raise ValueError(f"acc_pct is in percent, got {acc_pct}")
    spent_wh = mui * iec_wh + tec_wh
    if math.isnan(spent_wh) or math.isnan(acc_pct) or spent_wh == 0:
        return math.nan
    return float(acc_pct**tau / spent_wh)


class Uncertain(NamedTuple):
    """A value and the half-width of its 95 % interval, in the value's unit."""

    value: float
    half_width: float


def greeness_ci95(acc_pct: Uncertain, tec_wh: Uncertain, iec_wh: Uncertain, mui: float, tau: float = TAU) -> float:
    """Half-width of G's 95 % interval, to first order.

    The inputs count as independent. A common gain error of the board scales every G on it alike and is no part of this:
    it matters between boards, not within a table. NaN where an input or its half-width is unknown.
    """
    spent_wh = mui * iec_wh.value + tec_wh.value
    value = greeness(acc_pct.value, tec_wh.value, iec_wh.value, mui, tau)
    if math.isnan(value) or acc_pct.value == 0:
        return math.nan
    relative = tau * acc_pct.half_width / acc_pct.value
    return value * math.hypot(relative, mui * iec_wh.half_width / spent_wh, tec_wh.half_width / spent_wh)


class Ranks(NamedTuple):
    """The best and the worst rank that a value may hold."""

    best: int
    worst: int


def rank_ranges(values: Sequence[float], half_widths: Sequence[float]) -> list[Ranks | None]:
    """The ranks each value may hold, highest first: (1, 3) means that it ties with two others for the first place.

    Two values differ only if they are further apart than the half-width of their difference (independent errors); one
    whose
    interval is unknown ties with all. A value that is NaN has no rank, and counts for nobody else's.
    """
    known = [number for number, value in enumerate(values) if not math.isnan(value)]

    def above(one: int, other: int) -> bool:
        apart = math.hypot(half_widths[one], half_widths[other])
        return values[one] - values[other] > apart  # False where `apart` is NaN: a tie

    ranges: list[Ranks | None] = [None] * len(values)
    for own in known:
        better = sum(above(other, own) for other in known)
        worse = sum(above(own, other) for other in known)
        ranges[own] = Ranks(1 + better, len(known) - worse)
    return ranges
