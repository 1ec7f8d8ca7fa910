"""The energy counter against what a script that polls power would have booked, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmark.report.figures.groups import source_of_stages
from benchmark.report.figures.style import blank, legend, looks
from benchmark.report.rows import StageRow

COUNTER = "nvml:counter"
POLLED = {
    "polled_wh": "mean of polled power × time",
    "polled_period_wh": "the paper's polling: 0.1 s of each 0.18 s",
}


def figure_counter(stages: Sequence[StageRow]) -> Figure | str:
    """Both ways of booking in W.h, and by how many percent polling is off, over the counter's energy of each record."""
    rows = [row for row in stages if row.first_mention and COUNTER in row.energy_source and counted_wh(row) > 0]
    drawn = {name: [row for row in rows if getattr(row, name) > 0] for name in POLLED}
    kept = [name for name in POLLED if drawn[name]]
    if not kept:
        return "n/a: no stage has both a GPU's energy counter and polled power"
    what = "Each record: a GPU's energy counter against polled power. Line: they agree."
    figure = blank(3.9, f"{what} {source_of_stages(rows)}", [POLLED[name] for name in kept])
    above, below = figure.subplots(2, 1, sharex=True)
    handles = []
    for name, look in zip(kept, looks(len(kept) + 1)[1:], strict=True):
        x, y = [counted_wh(row) for row in drawn[name]], [float(getattr(row, name)) for row in drawn[name]]
        off = [100 * (polled / counted - 1) for counted, polled in zip(x, y, strict=True)]
        handles += above.plot(x, y, look.marker, color=look.colour, mfc="white")
        below.plot(x, off, look.marker, color=look.colour, mfc="white")
    seen = [counted_wh(row) for name in kept for row in drawn[name]]
    ends = [min(seen), max(seen)]
    above.plot(ends, ends, color="black", lw=0.7, zorder=1)
    below.axhline(0, color="black", lw=0.7, zorder=1)
    above.set(xscale="log", yscale="log", ylabel="polled [W·h]")
    below.set(xscale="log", xlabel="counter [W·h]", ylabel="polled / counter − 1 [%]")
    legend(figure, handles, [POLLED[name] for name in kept])
    return figure


def counted_wh(row: StageRow) -> float:
    """What the counter says of a record in W.h: of the windows that count, where it is an inference's."""
    return row.measuring_wh if row.kind == "IEC" else row.energy_wh
