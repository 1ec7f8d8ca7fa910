"""A summary on a terminal: as much of each table as fits into its width, and no word or number broken."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.errors import one_line
from benchmark.report.markup import Cells
from benchmark.report.sheets import Sheet
from benchmark.streams import PLAIN

TIES = "a rank such as 1-3 is a tie: the intervals do not tell these rows apart"
"""A note on a column: where that is not shown, neither is this."""


def show(sheets: Sequence[Sheet], asked: Sequence[str], notes: Sequence[str], console: Console) -> None:
    """Print every sheet, and `notes` below the last. `asked` are headings of G and ranks that stand in place of the
    usual ones."""
    left_out: dict[str, None] = {}
    ranked = False  # whether any table here shows ranks
    for sheet in sheets:
        for line in sheet.title:
            console.print(one_line(line), markup=False, highlight=False)
        no_room_for, has_ranks = _show(sheet, asked, console)
        ranked = ranked or has_ranks
        left_out |= dict.fromkeys(no_room_for)
    if left_out:  # wrapped, for it is said where there is no room
        where = "summary.csv and by_mui.csv have them" if asked else "summary.csv has them"
        console.print(f"too narrow here for {', '.join(left_out)}: {where}", markup=False, highlight=False)
    for line in notes if ranked else [line for line in notes if line != TIES]:
        tell(line, console)


def tell(line: str, console: Console) -> None:
    """Print a line; on a terminal, or where there is little room, it breaks at its spaces alone."""
    line, parts = one_line(line), [one_line(line)]
    if console.width < WIDEST or console.is_terminal:
        parts = textwrap.wrap(
            line, console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    for part in parts:
        console.print(part, markup=False, highlight=False, soft_wrap=True)


WIDEST = 160
"""Where there is room for so many characters a note is one line, so that a file or a pipe can be searched."""


class _Layout(NamedTuple):
    """Columns of words and of numbers by their headings, and the rows of each."""

    heads: Sequence[str]
    words: Sequence[Sequence[str]]
    numbers: Sequence[str]
    cells: Sequence[Cells]

    def fits(self, console: Console) -> bool:
        return _needed([self.heads, *self.words], _column_words(self.numbers, self.cells)) <= console.width


def _show(sheet: Sheet, asked: Sequence[str], console: Console) -> tuple[list[str], bool]:
    """Print the rows of a sheet; returns what there was no room for, and whether ranks are shown."""
    layouts = list(_layouts(_spelled(sheet, console), asked))
    chosen = next((layout for layout in layouts if layout.fits(console)), None)
    heads, words, numbers, cells = chosen or layouts[-1]
    left_out = [name for name in layouts[0].numbers if name not in numbers]
    left_out += ["the intervals (±)"] if cells is not layouts[0].cells else []
    ranked = any(name.startswith("rank(") for name in numbers)
    if chosen is None:
        for told, own in zip(words, cells, strict=True):  # too narrow for a table: a row a paragraph
            said = ", ".join(f"{name} {own[name]}" for name in numbers)
            console.print(one_line(f"{told[0]}: {said}"), markup=False, highlight=False)
        return left_out, ranked
    table = Table(box=SIMPLE_HEAD)
    for heading, longest in zip(heads, _longest([heads, *words]), strict=True):
        table.add_column(heading, overflow="fold", min_width=longest)  # lines break at spaces
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for told, own in zip(words, cells, strict=True):
        # as texts: a name with brackets is a name, and no markup
        table.add_row(*(Text(one_line(word)) for word in told), *(Text(one_line(own[name])) for name in numbers))
    console.print(table)
    return left_out, ranked


def _spelled(sheet: Sheet, console: Console) -> Sheet:
    """The sheet as the stream can write it: a sign that takes two letters must be counted as two."""
    try:
        "±".encode(console.encoding)
    except UnicodeEncodeError:
        rows: list[Cells] = [{name: cell.replace("±", PLAIN["±"]) for name, cell in own.items()} for own in sheet.rows]
        return sheet._replace(rows=rows)
    return sheet


def _layouts(sheet: Sheet, asked: Sequence[str]) -> Iterator[_Layout]:
    """The layouts of a sheet, the widest first: what matters least goes first."""
    g = list(asked or ["G(500M)", "G(1B)", "rank(1B)"])
    most = g if asked else g[1:]
    wide = [[*begin, "acc %", "TEC W.h", "IEC mJ", *end, "grade"] for begin, end in ((["n"], g), ([], g), ([], most))]
    few = ["acc %", "TEC W.h", "IEC mJ", *(name for name in most if name.startswith("G("))]
    apart = [[own[name] for name in sheet.words] for own in sheet.rows]
    joined = [[own] for own in sheet.joined]
    for heads, words in ((sheet.words, apart), (["method, model"], joined)):
        yield from (_Layout(heads, words, numbers, sheet.rows) for numbers in wide)
    bare = [{name: re.split(r" (?:±|\+-)", cell)[0] for name, cell in own.items()} for own in sheet.rows]
    for cells in (sheet.rows, bare):  # without intervals, which stand in the CSV file
        yield _Layout(["method, model"], joined, few, cells)


def _column_words(names: Sequence[str], cells: Sequence[Cells]) -> list[list[str]]:
    return [list(names), *([own[name] for name in names] for own in cells)]


def _needed(words: Sequence[Sequence[str]], numbers: Sequence[Sequence[str]]) -> int:
    """Characters that a table needs where no word and no number is broken: words may take lines at their spaces."""
    whole = [max(map(len, column)) for column in zip(*numbers, strict=True)]
    return sum(width + 3 for width in (*_longest(words), *whole)) + 1  # a space on either side, and one between


def _longest(words: Sequence[Sequence[str]]) -> list[int]:
    """The longest word of each column."""
    columns = zip(*words, strict=True)
    return [max((len(part) for cell in column for part in cell.split()), default=0) for column in columns]
