"""How every figure looks: its size, colours and words. A figure is `Figure`, never pyplot's: nothing global stays."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from benchmark.errors import one_line

WIDTH_IN = 3.5
"""One column of a two-column paper."""

COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
"""Okabe and Ito's palette (2008), which colour-blind readers tell apart; the pale yellow last."""
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)), (0, (3, 3, 1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "||||", "xxxx", "\\\\\\\\", "++++", "----", "//--")

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib: a figure is the same on every machine
    "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6, "xtick.labelsize": 6,
    "ytick.labelsize": 6, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "lines.markersize": 3.5, "grid.linewidth": 0.4,
    "grid.color": "#cccccc", "axes.grid": True, "axes.axisbelow": True, "hatch.linewidth": 0.4, "patch.linewidth": 0.5,
    "legend.frameon": False, "legend.handlelength": 2.6, "legend.borderpad": 0.2, "legend.labelspacing": 0.3,
    "legend.columnspacing": 1.0, "svg.hashsalt": "full-cycle-energy-benchmark", "svg.fonttype": "path",
    "text.usetex": False, "axes.unicode_minus": True, "figure.facecolor": "white", "savefig.facecolor": "white",
    "path.simplify": True, "axes.formatter.use_mathtext": True, "backend": "agg",
}  # fmt: skip  # one setting a line would hide the shape

LINE_IN = 0.118
"""The height of a line of the caption."""
CAPTION_PT = 5.6
SHORT = 27
"""Letters of a label that fits half the width."""
LETTERS = 80
"""Letters of the caption in a line."""
DPI = 250


class Look(NamedTuple):
    """How one thing of several is told from the others, in colour and without."""

    colour: str
    dashes: Any
    marker: str
    hatch: str


def looks(count: int) -> list[Look]:
    """The looks of so many things: no two alike before the ninth."""
    each = zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), cycle(HATCHES), strict=False)
    return [Look(*parts) for parts in islice(each, count)]


def settings() -> Any:
    """The context in which figures are made and written; matplotlib's own settings come back after it."""
    return matplotlib.rc_context(cast(Any, dict(matplotlib.rcParamsDefault) | RC))


def blank(height_in: float, caption: str, labels: Sequence[str] = ()) -> Figure:
    """A figure of one column: `height_in` for its axes, below them room for a legend of `labels`, then its caption."""
    lines = textwrap.wrap(shown(caption, 1200), LETTERS, break_on_hyphens=False)
    rows = -(-len(labels) // _columns(labels)) if labels else 0
    text_in = LINE_IN * len(lines) + 0.05
    below_in = text_in + LINE_IN * rows
    whole_in = height_in + below_in
    figure = Figure(figsize=(WIDTH_IN, whole_in), layout="constrained")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "as asked for"
    engine.set(rect=(0.0, below_in / whole_in, 1.0, height_in / whole_in))
    place: dict[str, Any] = {"va": "bottom", "linespacing": 1.25, "size": CAPTION_PT, "color": "#444444"}
    figure.text(0.02, 0.03 / whole_in, "\n".join(lines).replace("$", r"\$"), **place)
    return figure


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend between the axes and the caption, in the room that `blank` left for these labels."""
    size = figure.get_size_inches()[1]
    lines = figure.texts[0].get_text().count("\n") + 1
    top = (LINE_IN * (lines + -(-len(labels) // _columns(labels))) + 0.05) / size
    figure.legend(
        list(handles), [plain(each) for each in labels], loc="upper center", ncols=_columns(labels),
        bbox_to_anchor=(0.5, top), borderaxespad=0.0,
    )  # fmt: skip  # one argument a line would hide the shape


def _columns(labels: Sequence[str]) -> int:
    """Two columns where the labels are short enough for it."""
    return 2 if max(map(len, labels)) <= SHORT else 1


def ticks(axis: Axis) -> None:
    """Words at a logarithmic axis: powers of ten; over less than two decades 1, 2, 5; over less than one half what
    fits. As letters and not as formulas, which take half the time of a figure."""
    low, high = sorted(axis.get_view_interval())
    if high < 3 * low:
        axis.set_major_locator(MaxNLocator(4))
    elif high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power_of_ten(value)))
    if high < 100 * low:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _power_of_ten(value: float) -> str:
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write the figure as SVG and PNG, the same bytes for the same figure: no date, no version. Raises OSError."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log" and not isinstance(axis.get_major_locator(), FixedLocator):
                ticks(axis)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None, "Creator": None, "Title": name})
    figure.set_layout_engine("none")  # what was laid out stays; doing it anew takes half the time
    figure.savefig(paths[1], dpi=DPI, metadata={"Software": None, "Title": name})
    return paths


def remove(folder: Path, name: str) -> None:
    """Remove what an earlier `save` under this name left: rows that are gone have no figure. Raises OSError."""
    for kind in ("svg", "png"):
        (folder / f"{name}.{kind}").unlink(missing_ok=True)


def plain(text: str, most: int = 44) -> str:
    """A text from a record as words in a figure: no formula, no sign that the font has not, and not too long."""
    told = shown(text, most)
    # matplotlib hides what begins with an underscore, and takes a pair of dollars for a formula
    return (f" {told}" if told.startswith("_") else told).replace("$", r"\$")


def shown(text: str, most: int = 44) -> str:
    """One line of signs that the font has, in `most` letters; the end stays, for what differs is often there."""
    told = one_line(text[: 20 * most])
    if len(told) > most:
        told = f"{told[: most - most // 3 - 1]}…{told[len(told) - most // 3 :]}"
    known = _letters()
    return "".join(letter if ord(letter) in known else "?" for letter in told)


@cache
def _letters() -> frozenset[int]:
    """The signs that the font has: any other is a warning for each, and an empty box."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
