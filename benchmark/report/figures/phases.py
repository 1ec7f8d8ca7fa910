"""What a life spends by phase: stacked bars of TEC, and of the whole life at half a billion inferences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.report.figures.groups import Group, Named
from benchmark.report.figures.style import blank, legend, looks, plain

MUI = 5e8
PHASES = ("base", "compress", "retrain")
MOST_BARS = 20


def figure_phases(group: Group) -> Figure | str:
    """A bar for each row, the cheapest life at the top: its phases alone, and with inference."""
    ordered = sorted(group.rows, key=_whole_wh)
    kept = ordered[:MOST_BARS]
    some = f"; the {len(kept)} cheapest of {len(ordered)} rows" if len(kept) < len(ordered) else ""
    labels = [*PHASES, "MUI × IEC"]
    caption = f"Energy of a life by phase{some}. Right: with inference, MUI = 500 M. {group.source}"
    figure = blank(0.6 + 0.16 * len(kept), caption, labels)
    left, right = figure.subplots(1, 2, sharey=True)
    handles = _bars(left, kept, PHASES)
    handles = _bars(right, kept, (*PHASES, "infer")) if handles else []
    left.set_yticks(range(len(kept)), [plain(each.name, 30) for each in kept])
    left.invert_yaxis()
    left.set_xlabel("TEC [W·h]")
    right.set_xlabel("whole life [W·h]")
    legend(figure, handles, labels)
    return figure


def _bars(axes: Axes, rows: Sequence[Named], parts: Sequence[str]) -> list[Any]:
    places, begun = range(len(rows)), [0.0] * len(rows)
    drawn = []
    for part, look in zip(parts, looks(len(parts) + 1)[1:], strict=True):  # no black: hatches would be lost in it
        values = [_part_wh(each, part) for each in rows]
        drawn.append(
            axes.barh(places, values, 0.7, begun, color=look.colour, hatch=look.hatch, edgecolor="white", lw=0.3)
        )
        begun = [low + value for low, value in zip(begun, values, strict=True)]
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=4)
    return drawn


def _part_wh(each: Named, part: str) -> float:
    """The energy of a phase in W.h; what has none (NaN) has no bar."""
    value = MUI * each.row.iec_wh if part == "infer" else float(getattr(each.row, f"{part}_wh"))
    return value if value > 0 else 0.0


def _whole_wh(each: Named) -> float:
    return each.row.tec_wh + MUI * each.row.iec_wh
