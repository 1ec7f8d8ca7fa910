"""What an inference costs by batch size, from the curve that every inference measurement takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.report.figures.groups import estimated, source_of_stages
from benchmark.report.figures.style import Look, blank, legend, looks
from benchmark.report.rows import J_PER_WH, StageRow, short_method

U_WH = 1e6
"""Micro-watt-hours in a W.h."""
MOST_CURVES = 8
LEAST_POINTS = 2


class Curve(NamedTuple):
    """IEC of one engine by batch size, in µW.h."""

    name: str
    row: StageRow
    batch_sizes: list[int]
    iec_uwh: list[float]


def figure_batch_size(book: Book, stages: Sequence[StageRow]) -> Figure | str:
    """A curve for each engine that was measured at several batch sizes; its headline stands out, with its interval."""
    found = curves(book, stages)
    if not found:
        return "n/a: no inference was measured at two batch sizes or more"
    kept = sorted(found, key=lambda each: min(each.iec_uwh))[:MOST_CURVES]
    some = f" The {len(kept)} cheapest of {len(found)} engines." if len(kept) < len(found) else ""
    what = "IEC by batch size, idle power included, one window each; full mark: the mean of the windows at the best."
    labels = [each.name for each in kept]
    figure = blank(2.5, f"{what}{some} {source_of_stages([each.row for each in kept])}", labels)
    axes = figure.subplots()
    handles = [_draw(axes, each, look) for each, look in zip(kept, looks(len(kept)), strict=True)]
    sizes = sorted({size for each in kept for size in each.batch_sizes})
    axes.set(xscale="log", yscale="log", xlabel="batch size [images]", ylabel="IEC [µW·h per image]")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.minorticks_off()
    legend(figure, handles, labels)
    return figure


def curves(book: Book, stages: Sequence[StageRow]) -> list[Curve]:
    """A curve for each record of a measurement that rows show; points without a number are left out."""
    by_key = book.newest_measurements()
    found = []
    for row in stages:
        record = by_key.get((row.machine, row.key))
        if row.kind != "IEC" or not row.first_mention or record is None:
            continue
        points = _points(record)
        if len(points) >= LEAST_POINTS:
            found.append(Curve(_name(row), row, [size for size, _ in points], [value for _, value in points]))
    return found


def _points(record: Record) -> list[tuple[int, float]]:
    """Batch sizes with µW.h per image, as far as a record.s details are what they should be."""
    curve = record.details.get("curve")
    found = []
    for point in curve if isinstance(curve, list) else []:
        size, joules = (point.get("batch_size"), point.get("joules")) if isinstance(point, dict) else (None, None)
        if isinstance(size, int) and isinstance(joules, int | float) and size > 0 and 0 < joules < math.inf:
            found.append((size, U_WH * joules / J_PER_WH))
    return sorted(found)


def _name(row: StageRow) -> str:
    model = row.model.rpartition("/")[2]
    return f"{'~' if estimated(row) else ''}{model} {row.deploy_precision}, {short_method(row.method)}"


def _draw(axes: Axes, curve: Curve, look: Look) -> Any:
    style: dict[str, Any] = {"ls": look.dashes, "marker": look.marker, "color": look.colour, "mfc": "white"}
    (line,) = axes.plot(curve.batch_sizes, curve.iec_uwh, **style)
    row = curve.row
    if row.iec_wh > 0 and row.batch_size > 0:
        value, half = U_WH * row.iec_wh, U_WH * row.iec_ci95_wh if math.isfinite(row.iec_ci95_wh) else 0.0
        low = min(half, 0.99 * value)  # a logarithm has no zero
        axes.errorbar([row.batch_size], [value], yerr=[[low], [half]], fmt=look.marker, color=look.colour, ms=5)
    return line
