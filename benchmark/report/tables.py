"""The CSV files, the page and the printed summary, all derived from records."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmark.plan.asked import Asked
from benchmark.records.book import Book
from benchmark.records.files import StoreError, replace
from benchmark.records.store import Store
from benchmark.report.by_mui import MuiRow, best_first, by_mui
from benchmark.report.by_mui import cells as by_mui_cells
from benchmark.report.footprint import footprint_of, notes, with_footprint
from benchmark.report.laid import safe
from benchmark.report.markup import latex, markdown
from benchmark.report.page.build import page
from benchmark.report.page.content import Source, content
from benchmark.report.paper import PAPER, paper_rows
from benchmark.report.printed import TIES, show
from benchmark.report.rows import StageRow, frame, stage_rows
from benchmark.report.sheets import Sheet, estimated, said, sheets
from benchmark.report.summary import RIVALS, SummaryRow, disturbance, summarise
from benchmark.report.total import Total, totals
from benchmark.report.turns import even_words, with_break_evens


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

    def show(self, console: Console) -> None:
        """Print the summary: a tilde marks estimated energy, and the notes stand below."""
        show(sheets(self.summary, self.more), list(self.more[0]) if self.more else [], self.notes, console)


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
    laid = sheets(tables.summary, tables.more)
    paper = paper_rows(PAPER / "paper_tables.csv") if PAPER.is_dir() else []  # a wheel has none
    source = Source(tables.book, tables.stages, tables.summary, paper, store.results)
    return {
        **{f"{name}.csv": safe(table).to_csv(index=False) for name, table in made.items()},
        "tables/summary.md": _of_sheets(markdown, laid, tables.notes),
        "tables/summary.tex": _of_sheets(latex, laid, tables.notes),
        "report.html": page(content(source, asked.tau, asked.mui[0] if asked.mui else 1e9)),
    }


def _of_sheets(lay: Callable[..., str], laid: Sequence[Sheet], notes: Sequence[str]) -> str:
    """Every sheet as markup, and the notes below the last."""
    return "\n".join(lay(each.rows, notes if each is laid[-1] else [], each.title) for each in laid)


FEW_EVENS = 12
"""So many break-evens stand below a table, a line each."""


def footnotes(summary: Sequence[SummaryRow]) -> list[str]:
    """What a reader must know before quoting a number of this table."""
    lines = []
    sources = ", ".join(sorted({source for row in summary for source in row.energy_source.split("+")} - {""}))
    lines.append(
        f"energy from {sources or 'nothing yet'}; IEC in mJ an image; G in percent^tau per W.h, "
        f"tau = {summary[0].tau:g}, the highest first; ± is a 95 % interval"
    )
    if any("-" in row.rank_1b for row in summary):
        lines.append(TIES)
    if any(row.n_seeds == 1 for row in summary):
        known = "intervals and ranks hold what meter and test images leave open"
        lines.append(f"n = 1: {known}, not the spread between seeds")
    if any(map(estimated, summary)):
        lines.append(
            "~ estimated, not measured: no meter on that machine (python -m benchmark device says why); other work on "
            "the machine raises an estimate, and ± leaves that out"
        )
    lines += disturbance(summary)
    energies = [row.iec_wh for row in summary if not math.isnan(row.iec_wh)]
    if len(set(energies)) < len(energies):
        lines.append("rows with the same IEC share one measurement, for their networks have one shape")
    if any(row.scale != "full" for row in summary):
        lines.append("scales other than full show that the parts fit together; their rows say nothing about a method")
    if len({tuple(said(name, row) for name in RIVALS) for row in summary}) > 1:
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
    lines += [f"incomplete: {_name(row)}: {row.missing} ({row.experiment})" for row in summary if row.missing]
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
