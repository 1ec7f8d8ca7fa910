"""G of several rows as curves: against the number of inferences (MUI), against tau, with bands and crossing points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.report.crossovers import Cycle, crossover
from benchmark.report.figures.style import Look, blank, legend, looks, plain
from benchmark.report.greeness import TAU, greeness, greeness_ci95

Cycles = Mapping[str, Cycle]

POINTS = 81
"""Points of a curve: smooth at the width of a column, and a small file."""
TAUS = tuple(float(tau) for tau in np.linspace(0, 10, POINTS))
G_LABEL = "G [%$^τ$ / W·h]"
MUI_LABEL = "number of inferences (MUI)"
TOLD = 10
"""So many crossings are numbered, and told in the caption; of more, the dots alone are drawn."""


class Crossing(NamedTuple):
    """Two rows of equal G, and where."""

    one: str
    other: str
    mui: float
    g: float


def g_of(cycle: Cycle, mui: float, tau: float = TAU) -> float:
    """G of a row in percent^tau per W.h."""
    return greeness(cycle.acc_pct.value, cycle.tec_wh.value, cycle.iec_wh.value, mui, tau)


def crossings(cycles: Cycles, at: Sequence[float], tau: float = TAU) -> list[Crossing]:
    """Where each pair of rows crosses within a range of MUI, the fewest inferences first."""
    names, found = list(cycles), []
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            mui = crossover(cycles[one], cycles[other], tau).mui
            if at[0] <= mui <= at[-1]:  # no NaN: they never cross
                found.append(Crossing(one, other, mui, g_of(cycles[one], mui, tau)))
    return sorted(found, key=lambda each: each.mui)


def muis(cycles: Cycles) -> list[float]:
    """Where to look: two decades around the MUI at which inference has cost as much as training, of every row."""
    even = [each.tec_wh.value / each.iec_wh.value for each in cycles.values() if each.iec_wh.value > 0]
    even = [mui for mui in even if 0 < mui < math.inf] or [1e8]
    low, high = max(0, math.floor(math.log10(min(even))) - 2), min(15, math.ceil(math.log10(max(even))) + 2)
    low, high = min(low, 13), max(high, 2)  # numbers of a stranger's records may be anything
    return [float(mui) for mui in np.logspace(low, high, POINTS)]


def against_mui(axes: Axes, cycles: Cycles, tau: float = TAU, base: Cycle | None = None) -> list[Artist]:
    """A curve for each row over MUI, its 95 % band where it is known, and a dot where two of them cross.

    With a `base` it is G over that of this row: what lies close together is seen apart. Returns the curves.
    """
    at = muis(cycles)
    scale = [1.0 if base is None else g_of(base, mui, tau) for mui in at]
    drawn: list[Artist] = []
    for look, cycle in zip(looks(len(cycles)), cycles.values(), strict=True):
        values = [g_of(cycle, mui, tau) / by for mui, by in zip(at, scale, strict=True)]
        halves = [greeness_ci95(*cycle, mui, tau) / by for mui, by in zip(at, scale, strict=True)]
        drawn.append(_curve(axes, at, (values, halves), look))
    axes.set(xscale="log", yscale="log" if base is None else "linear", xlabel=MUI_LABEL, ylabel=G_LABEL)
    axes.set_xlim(at[0], at[-1])
    _dots(axes, crossings(cycles, at, tau), tau, base)
    axes.margins(y=0.12)
    _spread(axes, base)
    return drawn


def _dots(axes: Axes, found: Sequence[Crossing], tau: float, base: Cycle | None) -> None:
    """Dots where rows cross, numbered in the relative view, where there is room."""
    ratios = [each.g / (1.0 if base is None else g_of(base, each.mui, tau)) for each in found]
    where = [each.mui for each in found]
    axes.plot(where, ratios, "o", mfc="black", mec="white", ms=4, mew=0.5, label="crossings", zorder=5)
    if base is None or len(found) > TOLD:
        return
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8}
    style: dict[str, Any] = {"textcoords": "offset points", "size": 5.5, "ha": "center", "zorder": 6, "bbox": box}
    for number, (mui, ratio) in enumerate(zip(where, ratios, strict=True), 1):
        # neighbours lie apart: an odd number to the left of its dot, an even one to the right
        axes.annotate(str(number), (mui, ratio), ((6, 5), (-6, 5), (6, -9), (-6, -9))[number % 4], **style)


def _spread(axes: Axes, base: Cycle | None) -> None:
    """Ratios that spread over more than a decade, on a logarithmic axis."""
    values = [float(value) for line in axes.get_lines() for value in np.asarray(line.get_ydata()) if value > 0]
    if base is not None and values and max(values) > 10 * min(values):
        axes.set_yscale("log")


def against_tau(axes: Axes, cycles: Cycles, mui: float, base: Cycle | None = None) -> list[Artist]:
    """A curve for each row against tau at one MUI; with a `base`, over that row's G. Returns the curves."""
    scale = [1.0 if base is None else g_of(base, mui, tau) for tau in TAUS]
    drawn: list[Artist] = []
    for look, cycle in zip(looks(len(cycles)), cycles.values(), strict=True):
        values = [g_of(cycle, mui, tau) / by for tau, by in zip(TAUS, scale, strict=True)]
        halves = [greeness_ci95(*cycle, mui, tau) / by for tau, by in zip(TAUS, scale, strict=True)]
        drawn.append(_curve(axes, TAUS, (values, halves), look))
    axes.set(yscale="log" if base is None else "linear", xlabel="exponent of accuracy τ", ylabel=G_LABEL)
    axes.set_xlim(TAUS[0], TAUS[-1])
    _spread(axes, base)
    return drawn


def _curve(axes: Axes, x: Sequence[float], y: tuple[Sequence[float], Sequence[float]], look: Look) -> Artist:
    """A line with its band; no band where it is unknown. One that reaches zero ends just above it, for logarithms."""
    values, halves = y
    every = (POINTS // 16, POINTS // 8)
    (line,) = axes.plot(x, values, color=look.colour, ls=look.dashes, marker=look.marker, markevery=every, mfc="white")
    if not any(math.isnan(half) for half in halves) and max(halves) > 0:
        low = [max(value - half, value / 100) for value, half in zip(values, halves, strict=True)]
        high = [value + half for value, half in zip(values, halves, strict=True)]
        axes.fill_between(x, low, high, color=look.colour, alpha=0.18, lw=0)
    return line


def mui_figure(cycles: Cycles, caption: str, tau: float = TAU) -> Figure:
    """G against MUI; below it, where there are several rows, over that of the first, crossings numbered as told."""
    if len(cycles) == 1:
        return _single(cycles, caption, tau)
    first = next(iter(cycles))
    figure = blank(3.9, f"{caption} {told_crossings(cycles, tau)}", list(cycles))
    above, below = figure.subplots(2, 1, sharex=True)
    handles = against_mui(above, cycles, tau)
    against_mui(below, cycles, tau, cycles[first])
    above.set_xlabel("")
    below.set_ylabel(f"G / G of {plain(first, 26)}")
    legend(figure, handles, list(cycles))
    return figure


def tau_figure(cycles: Cycles, caption: str, mui: float) -> Figure:
    """G against tau at one MUI; below it the same over G of the first row."""
    first = next(iter(cycles))
    figure = blank(3.9, caption, list(cycles))
    above, below = figure.subplots(2, 1, sharex=True)
    handles = against_tau(above, cycles, mui)
    against_tau(below, cycles, mui, cycles[first])
    above.set_xlabel("")
    below.set_ylabel(f"G / G of {plain(first, 26)}")
    legend(figure, handles, list(cycles))
    return figure


def taus_figure(cycles: Cycles, caption: str, taus: Sequence[float] = (5.0, 10.0)) -> Figure:
    """G against MUI, a panel for each tau."""
    figure = blank(3.9, caption, list(cycles))
    handles: list[Artist] = []
    panels = figure.subplots(len(taus), 1, sharex=True, squeeze=False)[:, 0]
    for axes, tau in zip(panels, taus, strict=True):
        handles = against_mui(axes, cycles, tau)
        axes.set(title=f"τ = {tau:g}", xlabel="")
    panels[-1].set_xlabel(MUI_LABEL)
    legend(figure, handles, list(cycles))
    return figure


def _single(cycles: Cycles, caption: str, tau: float) -> Figure:
    """G of one row against MUI: there is nothing to compare it with."""
    figure = blank(2.4, caption, list(cycles))
    legend(figure, against_mui(figure.subplots(), cycles, tau), list(cycles))
    return figure


def told_crossings(cycles: Cycles, tau: float) -> str:
    """The crossings in words, numbered as in the figure; how many, where they are too many to tell."""
    found = crossings(cycles, muis(cycles), tau)
    if not found:
        return "No two of them cross in this range."
    if len(found) > TOLD:
        return f"Dots: {len(found)} crossings."
    told = [f"{number}) {each.one} = {each.other}: {amount(each.mui)}" for number, each in enumerate(found, 1)]
    return f"Crossings: {'; '.join(told)}."


def amount(mui: float) -> str:
    """A number of inferences for a caption, to three digits."""
    for size, unit in ((1e9, " billion"), (1e6, " M"), (1e3, " thousand")):
        if mui >= size:
            return f"{mui / size:.3g}{unit}"
    return f"{mui:.3g}"
