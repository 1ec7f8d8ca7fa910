"""The CSV files, the page and the printed summary, all derived from records."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.energy.judge.reading import is_estimate
from benchmark.errors import one_line
from benchmark.plan.asked import Asked
from benchmark.records.book import Book
from benchmark.records.files import StoreError, replace
from benchmark.records.store import Store
from benchmark.report.by_mui import MuiRow, best_first, by_mui
from benchmark.report.by_mui import cells as by_mui_cells
from benchmark.report.footprint import footprint_of, notes, with_footprint
from benchmark.report.laid import MJ_PER_WH, number, safe
from benchmark.report.markup import Cells, latex, markdown
from benchmark.report.page.build import page
from benchmark.report.page.content import Source, content
from benchmark.report.paper import PAPER, paper_rows
from benchmark.report.rows import StageRow, frame, stage_rows
from benchmark.report.summary import RIVALS, SummaryRow, summarise
from benchmark.report.total import Total, totals
from benchmark.report.turns import even_words, with_break_evens

TITLE = {
    "data": ("data", "classes", "train_images", "test_images", "scale", "max_epochs"),
    "training": ("recipe", "profile", "train_precision", "train_machine"),
    "inference": ("engine", "engine_version", "deploy_precision", "infer_machine"),
}
"""What rows of one table usually share: said above it, a line each; where rows differ in it, it is a column."""

SETTING = tuple(name for part in TITLE.values() for name in part)

LABELS = {
    "train_precision": "train {}", "deploy_precision": "deploy {}", "classes": "{} classes", "recipe": "recipe {}",
    "train_images": "{} training images", "test_images": "{} test images", "scale": "scale {}",
    "max_epochs": "epoch limit {:g}", "profile": "profile {}", "engine_version": "version {}",
    "train_machine": "on {}", "infer_machine": "on {}",
}  # fmt: skip  # one value a line would hide the shape
"""How a value is said in a title."""


@dataclass
class Tables:
    """The rows, lines on files that say nothing, the files that were written, and why others were not.

    `more` are further cells for each row of the summary, by heading, and `notes` what must stand below the table.
    """

    book: Book = field(default_factory=Book)
    summary: list[SummaryRow] = field(default_factory=list)
    stages: list[StageRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    more: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(store: Store, asked: Asked) -> Tables:
    """Build the CSV files, the summary as Markdown and LaTeX, and the page.

    Where nothing was ever run, nothing is written. Raises UserError for a country that nobody knows.
    """
    footprint = footprint_of(asked)
    book = Book.read(store)
    stages = stage_rows(book, asked.max_drop_pct)
    summary = best_first(summarise(book, stages, asked.tau), asked.mui[0] if asked.mui else 1e9)
    summary = with_footprint(with_break_evens(summary), footprint)
    tables = Tables(book, summary, stages, book.unreadable)
    tables.more = by_mui_cells(summary, asked.mui, asked.tau)
    tables.notes = [*footnotes(summary), *notes(footprint)] if summary else []
    if not asked.mui:
        with contextlib.suppress(OSError):
            (store.results / "by_mui.csv").unlink(missing_ok=True)  # it answers what is not asked now
    for name, text in _files(store, asked, tables).items() if summary else ():
        try:
            replace(store.results / name, text.encode())
            tables.paths.append(store.results / name)
        except StoreError as error:  # somebody else's folder can still be looked at
            tables.unwritten.append(f"{error}: this table is printed, and not written")
    return tables


def _files(store: Store, asked: Asked, tables: Tables) -> dict[str, str]:
    """What is written, by its place in the results folder."""
    made = {"stages": frame(tables.stages, StageRow), "summary": frame(tables.summary, SummaryRow)}
    made["totals"] = pd.DataFrame(totals(tables.stages), columns=Total._fields)
    if asked.mui:
        made["by_mui"] = frame(by_mui(tables.summary, asked.mui, asked.tau), MuiRow)
    cells = [_cells(row) | more for row, more in zip(tables.summary, tables.more, strict=True)]
    paper = paper_rows(PAPER / "paper_tables.csv") if PAPER.is_dir() else []  # a wheel has none
    source = Source(tables.book, tables.stages, tables.summary, paper, store.results)
    return {
        **{f"{name}.csv": safe(table).to_csv(index=False) for name, table in made.items()},
        "tables/summary.md": markdown(cells, tables.notes),
        "tables/summary.tex": latex(cells, tables.notes),
        "report.html": page(content(source, asked.tau, asked.mui[0] if asked.mui else 1e9)),
    }


FEW_EVENS = 12
"""So many break-evens stand below a table, a line each."""


def show(
    summary: Sequence[SummaryRow], console: Console, more: Sequence[Cells] = (), notes: Sequence[str] | None = None
) -> None:
    """Print the summary: a tilde marks estimated energy, and `notes` (or those of the rows) stand below. `more` are
    further cells for each row.

    A column that says the same in every row goes to the title; one in which rows differ is shown.
    """
    more = more or [{}] * len(summary)
    varied = [name for name in SETTING if len({_said(name, row) for row in summary}) > 1]
    for line in _title(summary, varied):
        console.print(one_line(line), markup=False, highlight=False)
    varied += ["settings"] if any(row.settings for row in summary) else []
    cells = [{**_cells(row), **further} for row, further in zip(summary, more, strict=True)]
    words = [
        [own["method"], own["model"], *(_said(name, row) for name in varied)]
        for own, row in zip(cells, summary, strict=True)
    ]
    heads, asked = ["method", "model", *(name.replace("_precision", "") for name in varied)], list(more[0])
    whole = numbers = ["n", "acc %", "TEC W.h", "IEC mJ", *(asked or ["G(500M)", "G(1B)", "rank(1B)"]), "grade"]
    below = footnotes(summary) if notes is None else notes
    left_out = []
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:
        heads, words = ["method, model"], [[_joined(own, varied)] for own in words]
        numbers = ["acc %", "TEC W.h", "IEC mJ", *(asked or ["G(1B)"])]
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:  # then intervals stand in the CSV file
        cells = [{name: cell.partition(" ±")[0] for name, cell in own.items()} for own in cells]
        left_out.append("the intervals (±)")
    left_out = [*(name for name in whole if name not in numbers), *left_out]
    if _needed([heads, *words], _column_words(numbers, cells)) > console.width:
        for told, own in zip(words, cells, strict=True):  # too narrow for a table: a row a paragraph
            said = ", ".join(f"{name} {own[name]}" for name in numbers)
            console.print(one_line(f"{told[0]}: {said}"), markup=False, highlight=False)
        _print_notes(console, below, left_out)
        return
    table = Table(box=SIMPLE_HEAD)
    for heading, longest in zip(heads, _longest([heads, *words]), strict=True):
        table.add_column(heading, overflow="fold", min_width=longest)  # lines break at spaces
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for told, own in zip(words, cells, strict=True):
        # as texts: a name with brackets is a name, and no markup
        table.add_row(*(Text(one_line(word)) for word in told), *(Text(one_line(own[name])) for name in numbers))
    console.print(table)
    _print_notes(console, below, left_out)


def _print_notes(console: Console, notes: Sequence[str], left_out: Sequence[str]) -> None:
    if left_out:  # wrapped, for it is said where there is no room
        console.print(f"too narrow here for {', '.join(left_out)}: summary.csv has them", markup=False, highlight=False)
    for line in notes:
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


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


def _title(summary: Sequence[SummaryRow], varied: Sequence[str]) -> Iterator[str]:
    """What every row of the table has in common, a line for each part of a life."""
    yield "Full-cycle energy"
    for part, own in TITLE.items():
        common = [name for name in own if name not in varied and _said(name, summary[0])]
        if common:
            said = [LABELS.get(name, "{}").format(getattr(summary[0], name)) for name in common]
            yield f"{part + ':':<10} {', '.join(said)}"


def _joined(words: Sequence[str], varied: Sequence[str]) -> str:
    """The words of a row in one cell; numbers with what they count."""
    named = {name: LABELS.get(name, "{}").replace(":g", "") for name in varied}  # the words are texts already
    told = [named[name].format(word) for name, word in zip(varied, words[2:], strict=True) if word]
    return " ".join(filter(None, words[:2])) + (f" ({', '.join(told)})" if told else "")


def _said(name: str, row: SummaryRow) -> str:
    """A row's word for a column of `LifeRow`; a number that is not there is none."""
    value = getattr(row, name)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value)


def _cells(row: SummaryRow) -> dict[str, str]:
    """A row's values as they are printed, by heading."""
    about = "~" if _estimated(row) else ""
    return {
        "method": row.method,
        "model": row.model if not row.teacher else f"{row.teacher} -> {row.model}",
        "n": str(row.n_seeds),
        "acc %": number(row.acc_pct, ".2f"),
        "TEC W.h": _with_interval(row.tec_wh, row.tec_ci95_wh, about),
        "IEC mJ": _with_interval(row.iec_wh * MJ_PER_WH, row.iec_ci95_wh * MJ_PER_WH, about),
        "G(500M)": number(row.g_500m, ".4g", about),
        "G(1B)": number(row.g_1b, ".4g", about),
        "rank(1B)": row.rank_1b or "-",
        "grade": row.grade,
    }


def _estimated(row: SummaryRow) -> bool:
    """Whether some of its energy is an estimate, whatever its grade: one of unknown TEC has the grade of that."""
    return row.grade == "E" or is_estimate(row.energy_source)


def footnotes(summary: Sequence[SummaryRow]) -> list[str]:
    """What a reader must know before quoting a number of this table."""
    lines = []
    sources = ", ".join(sorted({source for row in summary for source in row.energy_source.split("+")} - {""}))
    lines.append(
        f"energy from {sources or 'nothing yet'}; IEC in mJ an image; G in percent^tau per W.h, "
        f"tau = {summary[0].tau:g}; ± is a 95 % interval"
    )
    if any("-" in row.rank_1b for row in summary):
        lines.append("a rank such as 1-3 is a tie: the intervals do not tell these rows apart")
    if any(row.n_seeds == 1 for row in summary):
        known = "intervals and ranks hold what meter and test images leave open"
        lines.append(f"n = 1: {known}, not the spread between seeds")
    if any(map(_estimated, summary)):
        lines.append("~ estimated, not measured: no meter on that machine (python -m benchmark device says why)")
    if any(row.scale != "full" for row in summary):
        lines.append("scales other than full show that the parts fit together; their rows say nothing about a method")
    if len({tuple(_said(name, row) for name in RIVALS) for row in summary}) > 1:
        lines.append(
            "rows that differ in data, scale, profile, machine or engine are no rivals: each kind has its ranks"
        )
    lines += [
        f"{row.method}, {row.model}: a training of its life ran under autocast, {row.autocast}"
        for row in summary
        if row.autocast
    ]
    apart = [name for name in ("data", "scale") if len({getattr(row, name) for row in summary}) > 1]
    evens = {
        f"{', '.join([_name(row), *(str(getattr(row, name)) for name in apart)])}: {even_words(row)}"
        for row in summary
        if row.break_even
    }
    many = ["break-evens against the baselines: break_even_* in summary.csv"]
    lines += sorted(evens) if len(evens) <= FEW_EVENS else many
    lines += _engine_lines(summary)
    lines += [f"incomplete: {row.experiment}: {row.missing}" for row in summary if row.missing]
    return lines + [f"note: {row.experiment}: {row.notes}" for row in summary if row.notes]


def _name(row: SummaryRow) -> str:
    return f"{row.method}, {row.model}" + (f" ({row.settings})" if row.settings else "")


def _engine_lines(summary: Sequence[SummaryRow]) -> list[str]:
    """Engines that do not compute in what was asked for, and those that lost too much."""
    otherwise = {
        f"{row.engine} runs {row.deploy_precision} as {row.executed_precision}": None
        for row in summary
        if row.executed_precision not in ("", row.deploy_precision)
    }
    return [*otherwise, *(f"warning: {row.experiment}: {row.warning}" for row in summary if row.warning)]


def _with_interval(value: float, half_width: float, about: str) -> str:
    """A value with the half-width of its interval in percent."""
    told = number(value, ".4g", about)
    if not math.isfinite(value) or not math.isfinite(half_width) or value == 0:
        return told
    percent = 100 * half_width / value
    return f"{told} ±{percent:.0f}%" if percent >= 10 else f"{told} ±{percent:.2g}%"
