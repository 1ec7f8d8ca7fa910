"""The number of inferences (MUI) at which one row's G overtakes another's, in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

from benchmark.report.greeness import TAU, Uncertain


class Cycle(NamedTuple):
    """What G needs of a row: accuracy in percent, TEC and IEC in W.h, each with its 95 % half-width."""

    acc_pct: Uncertain
    tec_wh: Uncertain
    iec_wh: Uncertain


class Crossover(NamedTuple):
    """MUI where two rows have equal G, and its 95 % interval. NaN: they never cross, or the interval is unknown."""

    mui: float
    low: float
    high: float


def crossover(one: Cycle, other: Cycle, tau: float = TAU) -> Crossover:
    """MUI* = (A_i T_j - A_j T_i) / (A_j I_i - A_i I_j) with A = accuracy^tau.

    The interval holds each MUI at which the rows' difference is within its own uncertainty (Fieller's theorem, first
    order, independent inputs). Its high end is infinite where IEC is too uncertain to tell who wins in the long run.
    """
    most = max(one.acc_pct.value, other.acc_pct.value)
    if not most > 0:
        return Crossover(math.nan, math.nan, math.nan)
    # a common factor of both powers changes nothing, and 100^100 squared is more than a float holds
    one, other = _of(one, most), _of(other, most)
    power_one, power_other = one.acc_pct.value**tau, other.acc_pct.value**tau
    constant = power_one * other.tec_wh.value - power_other * one.tec_wh.value
    slope = power_one * other.iec_wh.value - power_other * one.iec_wh.value
    mui = -constant / slope if slope else math.nan
    if not (math.isfinite(mui) and mui > 0):
        return Crossover(math.nan, math.nan, math.nan)
    terms = _terms(one, other, tau) + _terms(other, one, tau)
    square = slope**2 - sum(per_mui**2 for _, per_mui in terms)
    half = constant * slope - sum(fixed * per_mui for fixed, per_mui in terms)
    rest = constant**2 - sum(fixed**2 for fixed, _ in terms)
    return Crossover(mui, *_interval(mui, square, half, rest))


def _of(cycle: Cycle, most: float) -> Cycle:
    """The cycle with its accuracy as a share of the higher one."""
    value, half_width = cycle.acc_pct
    return cycle._replace(acc_pct=Uncertain(value / most, half_width / most))


def _terms(own: Cycle, other: Cycle, tau: float) -> list[tuple[float, float]]:
    """How far each input of a row moves the difference: a constant and a part for each inference."""
    power_other = other.acc_pct.value**tau
    of_power = tau * own.acc_pct.value ** (tau - 1) * own.acc_pct.half_width
    return [
        (of_power * other.tec_wh.value, of_power * other.iec_wh.value),
        (power_other * own.tec_wh.half_width, 0.0),
        (0.0, power_other * own.iec_wh.half_width),
    ]


def _interval(mui: float, square: float, half: float, rest: float) -> tuple[float, float]:
    """The part around mui in which square * m^2 + 2 * half * m + rest is not positive, from 0 on."""
    inside = half**2 - square * rest
    if math.isnan(inside):
        return math.nan, math.nan
    if square == 0 or (square < 0 and inside < 0):
        return 0.0, math.inf
    root = math.sqrt(max(inside, 0.0))
    first, second = sorted(((-half - root) / square, (-half + root) / square))
    if square > 0:
        return max(first, 0.0), second
    return (max(second, 0.0), math.inf) if mui >= second else (0.0, first)
