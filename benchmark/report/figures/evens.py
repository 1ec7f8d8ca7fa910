"""From how many inferences on (or below how many) a row is greener than its baseline, with its interval."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from benchmark.report.figures.g_curves import MUI_LABEL
from benchmark.report.figures.groups import Group
from benchmark.report.figures.style import blank, legend, looks, plain

MOST_ROWS = 24
WORDS = {"from": "greener from here on", "below": "greener below this"}


def figure_crossovers(group: Group) -> Figure | str:
    """A point for each row with a break-even; an interval without end, or from zero, leaves the figure."""
    rows = [each for each in group.rows if each.row.break_even in WORDS and 0 < each.row.break_even_mui < math.inf]
    if not rows:
        return "n/a: no row's G crosses that of its baseline (same model, recipe and rivals)"
    kept = sorted(rows, key=lambda each: each.row.break_even_mui)[:MOST_ROWS]
    what = f"Break-even with the baseline of the same model, τ = {kept[0].row.tau:g}; lines: 95 % interval."
    caption = f"{what} {group.source}"
    used = [kind for kind in WORDS if any(each.row.break_even == kind for each in kept)]
    figure = blank(0.75 + 0.17 * len(kept), caption, [WORDS[kind] for kind in used])
    axes, handles = figure.subplots(), []
    low_end = min(each.row.break_even_mui for each in kept) / 100
    high_end = max(each.row.break_even_mui for each in kept) * 100
    for kind, look in zip(WORDS, looks(3)[1:], strict=True):
        own = [(place, each.row) for place, each in enumerate(kept) if each.row.break_even == kind]
        for place, row in own:
            low, high = max(row.break_even_low, low_end), min(row.break_even_high, high_end)
            if not math.isnan(row.break_even_low):
                axes.plot([low, high], [place, place], "-", color=look.colour, lw=1)
        if own:
            x, y = [row.break_even_mui for _, row in own], [place for place, _ in own]
            handles += axes.plot(x, y, look.marker, color=look.colour, mfc="white", ms=4)
    axes.set(xscale="log", xlabel=MUI_LABEL, xlim=(low_end, high_end))
    axes.set_yticks(range(len(kept)), [plain(each.name, 34) for each in kept])
    axes.set_ylim(len(kept) - 0.4, -0.6)
    legend(figure, handles, [WORDS[kind] for kind in used])
    return figure
