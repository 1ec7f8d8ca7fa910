"""How far the energies of a folder may be trusted: the share of its rows by measurement grade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmark.energy.judge.reading import GRADES
from benchmark.report.figures.groups import source_of_stages
from benchmark.report.figures.style import blank, legend, looks
from benchmark.report.rows import StageRow

KINDS = {"TEC": "stages of TEC", "deploy": "engines built", "IEC": "inference"}
WORDS = {
    "A": "A: counter, tick to tick", "B": "B: counter, interpolated", "C": "C: the driver's samples",
    "D": "D: polled, or disputed", "R": "R: a CPU's meter", "E": "E: estimate, no meter", "X": "X: no number",
}  # fmt: skip  # one grade a line would hide the shape


def figure_grades(stages: Sequence[StageRow]) -> Figure | str:
    """A bar for each kind of row, each record once; the number of records stands in each part."""
    rows = [row for row in stages if row.first_mention and row.grade in tuple(GRADES)]
    counts = {kind: Counter(row.grade for row in rows if row.kind == kind) for kind in KINDS}
    shown = [kind for kind in KINDS if counts[kind]]
    if not shown:
        return "n/a: there is no record"
    grades = [grade for grade in GRADES if any(counts[kind][grade] for kind in shown)]
    labels = [WORDS[grade] for grade in grades]
    caption = f"Share of records by measurement grade; the number of records in each part. {source_of_stages(rows)}"
    figure = blank(0.6 + 0.3 * len(shown), caption, labels)
    axes, handles, begun = figure.subplots(), [], [0.0] * len(shown)
    by_grade = dict(zip(GRADES, looks(len(GRADES) + 1)[1:], strict=True))  # no black: numbers stand in the bars
    for grade in grades:
        look = by_grade[grade]
        values = [100 * counts[kind][grade] / counts[kind].total() for kind in shown]
        bars = axes.barh(range(len(shown)), values, 0.6, begun, color=look.colour, hatch=look.hatch, edgecolor="white")
        words = [str(counts[kind][grade] or "") for kind in shown]
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        for word, value, low, place in zip(words, values, begun, range(len(shown)), strict=True):
            if word:
                axes.text(low + value / 2, place, word, ha="center", va="center", size=6, bbox=box)
        begun = [low + value for low, value in zip(begun, values, strict=True)]
        handles.append(bars)
    axes.set(xlim=(0, 100), xlabel="share of records [%]")
    axes.set_yticks(range(len(shown)), [KINDS[kind] for kind in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    legend(figure, handles, labels)
    return figure
