"""A table as it is written: raw numbers as CSV, and words for readers as Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from benchmark.errors import one_line
from benchmark.report.markup import latex, markdown

MJ_PER_WH = 3.6e6
"""IEC is said in millijoules an image: a watt-hour is a long way from what one costs."""


@dataclass(frozen=True)
class Laid:
    """`raw` goes to NAME.csv; `cells` (the same headings in each) with `notes` to NAME.md and NAME.tex."""

    name: str
    raw: pd.DataFrame
    cells: Sequence[Mapping[str, str]]
    notes: Sequence[str]

    def files(self) -> dict[str, str]:
        """The content of its three files by name; none where it has no row."""
        if not self.cells:
            return {}
        return {
            f"{self.name}.csv": safe(self.raw).to_csv(index=False),
            f"{self.name}.md": markdown(self.cells, self.notes),
            f"{self.name}.tex": latex(self.cells, self.notes),
        }


def safe(table: pd.DataFrame) -> pd.DataFrame:
    """The table with texts that no terminal and no spreadsheet takes for commands: names may come from anybody."""
    return table.map(lambda value: _plain(value) if isinstance(value, str) else value)


def _plain(text: str) -> str:
    told = one_line(text)
    return f"'{told}" if told[:1] in ("=", "+", "-", "@") else told


def number(value: float, style: str = ".4g", about: str = "") -> str:
    """A number in a style, with a mark before it; a dash where it is not known."""
    return about + format(value, style) if math.isfinite(value) else "-"


def beside(own: float, theirs: float, style: str = ".4g", about: str = "") -> str:
    """Ours, the other's in brackets, and how far apart in percent: '1.02 (1.00, +2.0 %)'."""
    if not math.isfinite(theirs):
        return number(own, style, about)
    if not math.isfinite(own):
        return f"- ({format(theirs, style)})"
    apart = f", {100 * (own / theirs - 1):+.1f} %" if theirs else ""
    return f"{number(own, style, about)} ({format(theirs, style)}{apart})"
