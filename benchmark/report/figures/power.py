"""Power over time, from the meter's raw readings: a life with its stages; one training as slower samplers see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmark.errors import UserError
from benchmark.records.book import Book
from benchmark.report.figures.groups import estimated, source_of_stages
from benchmark.report.figures.style import blank, legend, looks
from benchmark.report.readings import POWER, power_of, readings_of
from benchmark.report.rows import StageRow
from benchmark.report.sampling import Sampled, sampled

NOTHING = "n/a: no stage kept a GPU's power readings (an estimate has none: it needs a GPU's meter)"
BINS = 500
"""So many points a timeline has at most: the mean of each, and the range between its least and largest reading."""
FIRST_S = 120.0
"""So much of a training is shown as slower samplers see it."""
FIGURE_5_S = 20.0
"""A training at least this long is taken for it, where there is one: slow samplers need readings."""
NARROW = 0.04
"""A stage that takes a smaller share of the time has no number in its ribbon: it would not fit."""


class Trace(NamedTuple):
    """Power of a stage: seconds since its window began, watts, and its pauses (begin, end)."""

    row: StageRow
    t_s: NDArray[np.float64]
    watts: NDArray[np.float64]
    pauses: list[tuple[float, float]]


def figure_power(book: Book, stages: Sequence[StageRow]) -> Figure | str:
    """Power of one life's stages, one after another, each with its ribbon: the life with most stages with readings."""
    lives: dict[tuple[str, int], list[StageRow]] = {}
    for row in stages:
        # the readings of an inference are those of all engines that took turns with it
        if row.key and row.kind != "IEC" and not estimated(row) and book.samples(row.machine, row.key) is not None:
            lives.setdefault((row.experiment, row.seed), []).append(row)
    for own in sorted(lives.values(), key=lambda own: (-len(own), -math.fsum(row.seconds for row in own))):
        traces = [trace for row in own if (trace := _trace(book, row)) is not None]
        if traces:
            return _timeline(traces)
    return NOTHING


def _timeline(traces: Sequence[Trace]) -> Figure:
    ends = [max(float(each.t_s[-1]), 1e-3) for each in traces]
    starts = [0.0, *accumulate(ends)]
    phases = list(dict.fromkeys(each.row.phase for each in traces))
    lasted = [f"{each.row.stage} {end:.3g} s" for each, end in zip(traces, ends, strict=True)]
    told = "; ".join(f"{number}) {words}" for number, words in enumerate(lasted, 1))
    of = traces[0].row
    what = f"Power of the life {of.method}, {of.model}, seed {of.seed}, its stages one after another: {told}."
    band = "Line: mean of a slot, band: its range, grey: paused."
    figure = blank(2.6, f"{what} {band} {source_of_stages([each.row for each in traces])}", phases)
    above, ribbon = figure.subplots(2, 1, sharex=True, height_ratios=(8, 1))
    look_of = dict(zip(phases, looks(len(phases) + 1)[1:], strict=True))
    for number, (each, start, end) in enumerate(zip(traces, starts, ends, strict=False), 1):
        _draw(above, each, start, max(2, round(BINS * end / starts[-1])))
        look = look_of[each.row.phase]
        ribbon.barh(0, end, 1, start, color=look.colour, hatch=look.hatch, edgecolor="white")
        if end > NARROW * starts[-1]:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            ribbon.text(start + end / 2, 0, str(number), ha="center", va="center", size=5.5, bbox=box)
    above.set(ylabel="power [W]", xlim=(0, starts[-1]))
    above.set_ylim(bottom=0)
    ribbon.set(xlabel="time on the meter [s]", yticks=[], ylim=(-0.5, 0.5))
    ribbon.grid(visible=False)
    handles = [Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white") for look in look_of.values()]
    legend(figure, handles, phases)
    return figure


def _draw(axes: Axes, trace: Trace, start: float, bins: int) -> None:
    """A stage's power as means of slots with their range; its pauses in grey."""
    share = (trace.t_s - trace.t_s[0]) / max(float(trace.t_s[-1] - trace.t_s[0]), 1e-9)
    slots = np.minimum(share * bins, bins - 1).astype(int)
    own = [(trace.t_s[slots == slot], trace.watts[slots == slot]) for slot in np.unique(slots)]
    t_s = [start + float(times.mean()) for times, _ in own]
    axes.fill_between(t_s, [w.min() for _, w in own], [w.max() for _, w in own], color="#0072B2", alpha=0.25, lw=0)
    axes.plot(t_s, [float(watts.mean()) for _, watts in own], color="#0072B2", lw=0.8)
    axes.axvline(start, color="black", lw=0.5)
    for begin, end in trace.pauses:
        axes.axvspan(start + begin, start + end, color="#bbbbbb", alpha=0.5, lw=0)


def _trace(book: Book, row: StageRow) -> Trace | None:
    """A stage's power readings within its window; None where there are not two, or the file is none of ours."""
    found = power_of(book.samples(row.machine, row.key))
    if found is None:
        return None
    t_s, watts = np.array(found.points).T
    return Trace(row, t_s, watts, found.pauses)


def figure_5(book: Book, stages: Sequence[StageRow]) -> Figure | str:
    """One training's power as read every 0.1, 0.5 and 1 s, each with its mean (the paper's Figure 5).

    Taken: a stage whose settings say three epochs, else the shortest that lasts 20 s or more, else the longest.
    """
    rows = [row for row in stages if row.first_mention and row.kind == "TEC" and row.seconds > 0]
    for row in sorted(rows, key=_fitness):
        path = book.samples(row.machine, row.key)
        found = None if path is None else _sampled(path)
        if found:
            return _three(row, found)
    return NOTHING


def _fitness(row: StageRow) -> tuple[bool, bool, float]:
    long = row.seconds >= FIGURE_5_S
    return "recipe.epochs=3" not in row.settings.split(), not long, row.seconds if long else -row.seconds


def _sampled(path: Path) -> list[Sampled]:
    """The readings as each period would have seen them, of the best kind there is; nothing where there are none."""
    if readings_of(path) is None:
        return []
    for kind in POWER:
        try:
            return sampled(path, kind)
        except (UserError, ValueError):  # it holds no two readings of this kind, or numbers that are none
            continue
    return []


def _three(row: StageRow, found: Sequence[Sampled]) -> Figure:
    what = f"Power of {row.stage} ({row.method}, {row.model}, seed {row.seed}) as read every {_periods(found)} s."
    some = f" The first {FIRST_S:g} s are drawn; means are of all." if row.seconds > FIRST_S else ""
    figure = blank(3.6, f"{what} Dashed: its mean.{some} {source_of_stages([row])}")
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True)
    for axes, each, look in zip(panels, found, looks(len(found) + 1)[1:], strict=True):
        power = each.power[each.power["t_s"] <= FIRST_S]
        axes.plot(power["t_s"], power["watts"], color=look.colour, lw=0.8, drawstyle="steps-post")
        axes.axhline(each.mean_w, color="black", ls="--", lw=0.8)
        axes.set_title(f"every {each.period_s:g} s: mean {each.mean_w:.1f} W, {each.joules / 3600:.4g} W·h", loc="left")
        axes.set_ylabel("power [W]")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, min(FIRST_S, float(each.power["t_s"].iloc[-1])))
    panels[-1].set_xlabel("time [s]")
    return figure


def _periods(found: Sequence[Sampled]) -> str:
    words = [f"{each.period_s:g}" for each in found]
    return ", ".join(words[:-1]) + " and " + words[-1]
