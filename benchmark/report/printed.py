"""A summary on a terminal: as much of each table as fits into its width, and no word or number broken."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.errors import one_line
from benchmark.report.markup import Cells
from benchmark.report.sheets import Sheet

TIES = "a rank such as 1-3 is a tie: the intervals do not tell these rows apart"
"""A note on a column: where that is not shown, neither is this."""


def show(sheets: Sequence[Sheet], asked: Sequence[str], notes: Sequence[str], console: Console) -> None:
    """Print every sheet, and `notes` below the last. `asked` are headings of G that stand in place of the usual
    ones."""
    left_out: dict[str, None] = {}
    ranked = False  # whether any table here shows ranks
    for sheet in sheets:
        for line in sheet.title:
            console.print(one_line(line), markup=False, highlight=False)
        no_room_for = _show(sheet, asked, console)
        ranked = ranked or not (asked or "rank(1B)" in no_room_for)
        left_out |= dict.fromkeys(no_room_for)
    if left_out:  # wrapped, for it is said where there is no room
        console.print(f"too narrow here for {', '.join(left_out)}: summary.csv has them", markup=False, highlight=False)
    for line in notes if ranked else [line for line in notes if line != TIES]:
        for part in _wrapped(one_line(line), console):
            console.print(part, markup=False, highlight=False, soft_wrap=True)


WIDEST = 160
"""Where there is room for so many characters a note is one line, so that a file or a pipe can be searched."""


def _wrapped(line: str, console: Console) -> list[str]:
    """The line in parts that break at its spaces alone."""
    if console.width >= WIDEST and not console.is_terminal:
        return [line]
    return textwrap.wrap(line, console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _show(sheet: Sheet, asked: Sequence[str], console: Console) -> list[str]:
    """Print the rows of a sheet; returns what there was no room for."""
    heads, words = sheet.words, [[own[name] for name in sheet.words] for own in sheet.rows]
    cells, left_out = sheet.rows, list[str]()
    whole = numbers = ["n", "acc %", "TEC W.h", "IEC mJ", *(asked or ["G(500M)", "G(1B)", "rank(1B)"]), "grade"]
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:
        heads, words = ["method, model"], [[own] for own in sheet.joined]
        numbers = ["acc %", "TEC W.h", "IEC mJ", *(asked or ["G(1B)"])]
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:  # then intervals stand in the CSV file
        cells = [{name: cell.partition(" ±")[0] for name, cell in own.items()} for own in cells]
        left_out.append("the intervals (±)")
    left_out = [*(name for name in whole if name not in numbers), *left_out]
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:
        for told, own in zip(words, cells, strict=True):  # too narrow for a table: a row a paragraph
            said = ", ".join(f"{name} {own[name]}" for name in numbers)
            console.print(one_line(f"{told[0]}: {said}"), markup=False, highlight=False)
        return left_out
    table = Table(box=SIMPLE_HEAD)
    for heading, longest in zip(heads, _longest([heads, *words]), strict=True):
        table.add_column(heading, overflow="fold", min_width=longest)  # lines break at spaces
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for told, own in zip(words, cells, strict=True):
        # as texts: a name with brackets is a name, and no markup
        table.add_row(*(Text(one_line(word)) for word in told), *(Text(one_line(own[name])) for name in numbers))
    console.print(table)
    return left_out


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
