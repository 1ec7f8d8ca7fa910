"""Greeness, the paper's figure of merit."""

from __future__ import annotations

import math
from collections.abc import Sequence

TAU = 2.0
"""The paper's exponent in Table 3."""


def greeness(acc_pct: float, tec_wh: float, iec_wh: float, mui: float, tau: float = TAU) -> float:
    """G(MUI) = acc^tau / (MUI * IEC + TEC), in percent^tau per W.h (Li et al., 2021, eq. 1).

    Accuracy in percent: the paper's text says 0 to 1, but only percent gives the numbers of its tables. NaN where an
    input is
    NaN; raises ValueError on a negative one, or where nothing at all was spent.
    """
    values = {"acc_pct": acc_pct, "tec_wh": tec_wh, "iec_wh": iec_wh, "mui": mui}
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if acc_pct > 100:
        raise ValueError(f"acc_pct is in percent, got {acc_pct}")
    spent_wh = mui * iec_wh + tec_wh
    if math.isnan(spent_wh) or math.isnan(acc_pct):
        return math.nan
    if spent_wh == 0:
        raise ValueError("G is undefined where neither training nor inference spends energy")
    return float(acc_pct**tau / spent_wh)


def greeness_ci95(
    acc: tuple[float, float], tec: tuple[float, float], iec: tuple[float, float], mui: float, tau: float = TAU
) -> float:
    """Half-width of G's 95 % interval, from (value, half-width) of accuracy in percent, TEC and IEC in W.h; to first
    order.

    The inputs count as independent. A common gain error of the board scales every G on it alike and is no part of
    this: it
    matters between boards, not within a table. NaN where an input or its half-width is unknown.
    """
    spent_wh = mui * iec[0] + tec[0]
    value = greeness(acc[0], tec[0], iec[0], mui, tau)
    if math.isnan(value) or acc[0] == 0:
        return math.nan
    return value * math.hypot(tau * acc[1] / acc[0], mui * iec[1] / spent_wh, tec[1] / spent_wh)


def rank_ranges(values: Sequence[float], half_widths: Sequence[float]) -> list[tuple[int, int] | None]:
    """The ranks each value may hold, highest first: (1, 3) means that it ties with two others for the first place.

    Two values differ only if they are further apart than the half-width of their difference (independent errors); one
    whose
    interval is unknown ties with all. A value that is NaN has no rank, and counts for nobody else's.
    """
    known = [number for number, value in enumerate(values) if not math.isnan(value)]

    def above(one: int, other: int) -> bool:
        apart = math.hypot(half_widths[one], half_widths[other])
        return values[one] - values[other] > apart  # False where `apart` is NaN: a tie

    ranges: list[tuple[int, int] | None] = [None] * len(values)
    for own in known:
        better = sum(above(other, own) for other in known)
        worse = sum(above(own, other) for other in known)
        ranges[own] = (1 + better, len(known) - worse)
    return ranges
