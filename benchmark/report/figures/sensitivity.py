"""The paper's Figure 4: what a GPU does, draws and takes by the batch size of training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from benchmark.report.figures.groups import estimated, source_of_stages
from benchmark.report.figures.style import blank, legend, looks
from benchmark.report.rows import StageRow, short_method

SIZE = re.compile(r"(?:^|\s)recipe\.batch_size=(\d{1,7})(?=\s|$)")
MOST_LINES = 8
PANELS = (
    ("gpu_util_pct", "GPU utilisation [%]", 1.0), ("mem_util_pct", "memory utilisation [%]", 1.0),
    ("peak_memory_bytes", "peak memory [GiB]", 2.0**30), ("mean_power_w", "mean power [W]", 1.0),
    ("seconds", "time [s]", 1.0), ("energy_wh", "energy [W·h]", 1.0),
)  # fmt: skip  # a panel each


def figure_4(stages: Sequence[StageRow]) -> Figure | str:
    """Six panels over batch size: a line for each network and stage that was run at two sizes or more.

    Only rows whose `settings` name the batch size of training take part; the last stage of each life that has one.
    """
    lines = {name: own for name, own in _lines(stages).items() if len({size for size, _ in own}) > 1}
    if not lines:
        return "n/a: no stage was run at two batch sizes of training; experiment=sensitivity/batch_size does, on a GPU"
    kept = dict(sorted(lines.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_LINES])
    rows = [row for own in kept.values() for _, row in own]
    what = "Training by batch size (the paper's Figure 4); means over seeds."
    figure = blank(4.2, f"{what} {source_of_stages(rows)}", list(kept))
    handles: list[Artist] = []
    for axes, (column, words, unit) in zip(figure.subplots(3, 2, sharex=True).flat, PANELS, strict=True):
        handles, values_of = [], []
        for own, look in zip(kept.values(), looks(len(kept)), strict=True):
            sizes, values = _means([(size, getattr(row, column) / unit) for size, row in own])
            values_of += values
            handles += axes.plot(sizes, values, ls=look.dashes, marker=look.marker, color=look.colour, mfc="white")
        sizes = sorted({size for own in kept.values() for size, _ in own})
        axes.set(xscale="log", ylabel=words)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.minorticks_off()
        seen = [value for value in values_of if math.isfinite(value)]
        if seen:
            most = max(seen) or 1.0
            axes.set_ylim(-0.05 * most, 1.12 * most)
        else:
            axes.text(0.5, 0.5, "n/a: not measured", transform=axes.transAxes, ha="center", va="center")
            axes.set_yticks([])
    for axes in figure.axes[-2:]:
        axes.set_xlabel("batch size [images]")
    legend(figure, handles, list(kept))
    return figure


def _lines(stages: Sequence[StageRow]) -> dict[str, list[tuple[int, StageRow]]]:
    """By network and stage, the last training of each life with its batch size."""
    last: dict[tuple[str, int], tuple[int, StageRow]] = {}
    for row in stages:
        size = SIZE.search(row.settings)
        if size and row.kind == "TEC" and row.seconds > 0:
            last[row.experiment, row.seed] = (int(size[1]), row)  # stages come in their order
    found: dict[str, list[tuple[int, StageRow]]] = {}
    for size_of, row in last.values():
        model = row.model.rpartition("/")[2]
        network = f"{row.teacher.rpartition('/')[2]}→{model}" if row.teacher else model
        name = f"{'~' if estimated(row) else ''}{short_method(row.method)} {network}"
        found.setdefault(name, []).append((size_of, row))
    return found


def _means(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """The mean value at each size; NaN where any is unknown."""
    sizes = sorted({size for size, _ in points})
    by_size = [[value for size, value in points if size == each] for each in sizes]
    return sizes, [math.fsum(values) / len(values) for values in by_size]
