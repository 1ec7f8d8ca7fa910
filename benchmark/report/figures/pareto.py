"""Accuracy against the energy of a whole life, TEC + MUI x IEC, and the front of those that nobody beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.report.crossovers import Cycle
from benchmark.report.figures.g_curves import amount
from benchmark.report.figures.groups import Group, family
from benchmark.report.figures.of_paper import SOURCE, cycle_of
from benchmark.report.figures.style import Look, blank, legend, looks
from benchmark.report.paper import PaperRow

MUIS = (1e6, 1e9)
NEAR, NEAR_PCT = 1.07, 0.6
"""Rows of a front this near to one another, in energy and in points of accuracy, share a label."""
TOLD = 12
"""So many rows of the fronts are told by name in the caption."""


class Point(NamedTuple):
    """A row: its name, its family (which gives it its look), and what G needs of it."""

    name: str
    family: str
    cycle: Cycle


def of_paper(rows: Sequence[PaperRow]) -> Figure | str:
    """Every row of the paper's tables."""
    points = [Point(row.name.replace("->", "→"), row.family, cycle_of(row)) for row in rows]
    return pareto_figure(points, SOURCE) if points else "n/a: the paper's table given holds no row"


def of_group(group: Group) -> Figure | str:
    """Every row of a group of rivals."""
    return pareto_figure([Point(each.name, family(each.row), each.cycle) for each in group.rows], group.source)


def pareto_figure(points: Sequence[Point], source: str) -> Figure:
    """A panel for each MUI, with the front as a line; its rows are numbered, and named in the caption."""
    families = sorted({each.family for each in points})
    by_family = dict(zip(families, looks(len(families)), strict=True))
    fronts = {mui: front(points, mui) for mui in MUIS}
    numbers = {each: number for number, each in enumerate(dict.fromkeys(chain(*fronts.values())), 1)}
    told = "; ".join(f"{number}) {each.name}" for each, number in numbers.items() if number <= TOLD)
    figure = blank(3.9, f"Accuracy against life-cycle energy. Pareto fronts (grey): {told}. {source}", families)
    for axes, mui in zip(figure.subplots(2, 1), MUIS, strict=True):
        handles = []
        for name, look in by_family.items():
            handles.append(_family(axes, [each for each in points if each.family == name], mui, look))
        _front(axes, fronts[mui], mui, numbers)
        axes.set(xscale="log", xlabel=f"TEC + MUI × IEC [W·h] at MUI = {amount(mui)}", ylabel="top-1 accuracy [%]")
        axes.margins(x=0.1, y=0.14)
    legend(figure, handles, families)
    return figure


def front(points: Sequence[Point], mui: float) -> list[Point]:
    """The rows that no other beats in accuracy and in energy, the cheapest first; of two equal ones the first."""
    found: list[Point] = []
    for each in sorted(points, key=lambda each: (spent_wh(each.cycle, mui), -each.cycle.acc_pct.value)):
        if not found or each.cycle.acc_pct.value > found[-1].cycle.acc_pct.value:
            found.append(each)
    return found


def spent_wh(cycle: Cycle, mui: float) -> float:
    """The energy of a life in W.h."""
    return cycle.tec_wh.value + mui * cycle.iec_wh.value


def _family(axes: Axes, points: Sequence[Point], mui: float, look: Look) -> Any:
    """The points of a family, with their 95 % intervals where these are known."""
    x = [spent_wh(each.cycle, mui) for each in points]
    wide = [_known(math.hypot(each.cycle.tec_wh.half_width, mui * each.cycle.iec_wh.half_width)) for each in points]
    high = [_known(each.cycle.acc_pct.half_width) for each in points]
    low = [min(half, 0.99 * value) for half, value in zip(wide, x, strict=True)]  # a logarithm has no zero
    y = [each.cycle.acc_pct.value for each in points]
    style: dict[str, Any] = {"fmt": look.marker, "color": look.colour, "mfc": "white", "ms": 4, "elinewidth": 0.6}
    return axes.errorbar(x, y, xerr=[low, wide], yerr=high, **style)


def _known(half_width: float) -> float:
    return half_width if math.isfinite(half_width) else 0.0


def _front(axes: Axes, found: Sequence[Point], mui: float, numbers: dict[Point, int]) -> None:
    x, y = [spent_wh(each.cycle, mui) for each in found], [each.cycle.acc_pct.value for each in found]
    axes.plot(x, y, color="#888888", lw=1, drawstyle="steps-post", zorder=1, label="front")
    labels: list[tuple[float, float, list[str]]] = []
    for each, at_x, at_y in zip(found, x, y, strict=True):
        if numbers[each] > TOLD:
            continue
        if labels and at_x < NEAR * labels[-1][0] and at_y < labels[-1][1] + NEAR_PCT:
            labels[-1][2].append(str(numbers[each]))  # they would lie on one another
        else:
            labels.append((at_x, at_y, [str(numbers[each])]))
    for at_x, at_y, own in labels:
        axes.annotate(",".join(own), (at_x, at_y), (0, 6), textcoords="offset points", size=5.5, ha="center", zorder=6)
