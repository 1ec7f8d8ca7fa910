"""`report`: everything that is made of records, and with source=paper of the paper's own table alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.common import folders_of, say, show_tables
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.plan.asked import Asked
    from benchmark.records.store import Store
    from benchmark.report.tables import Tables

FLAGS = {"figures": ("true", "false"), "exports": ("true", "false"), "source": ("records", "paper")}
"""Words of this command alone, and what they may be."""

OF_PAPER = ".paper"
"""The folder below the results in which the paper's own report is written."""


def report(words: Sequence[str]) -> int:
    """Tables, the page, the paper's tables with ours beside them, figures; with exports=true files for other tools."""
    flags, rest = _flags(words)
    if flags["source"] == "paper":
        if flags["exports"] == "true":
            raise UserError("source=paper: the paper's rows have no records to export")
        return _of_paper(rest, figures=flags["figures"] == "true")
    store, asked = folders_of(rest)
    tables = show_tables(store, asked)
    written = [*_beside(store, tables, asked.tau)]
    if flags["figures"] == "true":
        written += _figures(store.results / "figures", tables)
    if flags["exports"] == "true":
        written += _exports(store, asked, tables)
    _told(written)
    say(f"look at it: {store.results / 'report.html'}")
    return 0


def _flags(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """This command's own words, and the others."""
    found, rest = {"figures": "true", "exports": "false", "source": "records"}, []
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--no-") and name.removeprefix("--no-") in FLAGS and not equals:
            name, equals, value = name.removeprefix("--no-"), "=", "false"
        elif name.startswith("--") and name.removeprefix("--") in FLAGS:
            name, equals, value = name.removeprefix("--"), "=", value or "true"
        if name not in FLAGS:
            rest.append(word)
        elif not equals or value.lower() not in FLAGS[name]:
            raise UserError(f"{word}: {name}={' or '.join(FLAGS[name])}")
        else:
            found[name] = value.lower()
    return found, rest


def _beside(store: Store, tables: Tables, tau: float) -> list[Path]:
    """The paper's tables with ours beside them. A wheel holds no tables of the paper."""
    from benchmark.records.files import StoreError, replace
    from benchmark.report.beside import beside_paper
    from benchmark.report.pairs import pairs
    from benchmark.report.paper import PAPER, paper_rows

    if not PAPER.is_dir():
        say("n/a: the paper's tables lie in a checkout, and not in an installed package")
        return []
    written = []
    for stale in (store.results / "tables").glob("conventions.*"):
        stale.unlink(missing_ok=True)  # it has no file where no row has a convention
    paper = paper_rows(PAPER / "paper_tables.csv")
    every = beside_paper(PAPER, tables.book, tables.stages, tables.summary)
    for laid in [*every, pairs(tables.summary, paper, tau)]:
        for name, text in laid.files().items():
            path = store.results / "tables" / name
            try:
                replace(path, text.encode())
                written.append(path)
            except StoreError as error:  # somebody else's folder can still be looked at
                say(f"{error}: this table is not written")
    return written


def _figures(folder: Path, tables: Tables) -> list[Path]:
    from benchmark.report.figures.draw import draw
    from benchmark.report.paper import PAPER, paper_rows

    paper = paper_rows(PAPER / "paper_tables.csv") if PAPER.is_dir() else []
    say("drawing the figures (--no-figures leaves them out)")
    drawn = draw(folder, tables.book, tables.stages, tables.summary, paper)
    own_too = bool(tables.book.runs)
    for name, why in drawn.missing if own_too else (each for each in drawn.missing if not each[0].startswith("ours")):
        say(f"figure {name}: {why}")
    return drawn.paths


def _exports(store: Store, asked: Asked, tables: Tables) -> list[Path]:
    from benchmark.report.exports.writing import left_out, write_exports
    from benchmark.report.footprint import footprint_of

    footprint = footprint_of(asked)
    for stale in (store.results / "exports").glob("*/*"):  # a card of a row or a grid that is gone says what is not so
        if stale.is_file() and stale.parent.name in ("codecarbon", "spdx", "model_cards"):
            stale.unlink()
    paths = write_exports(store.results / "exports", tables.stages, tables.summary, footprint)
    for line in left_out(tables.summary, footprint):
        say(line)
    return paths


def _of_paper(words: Sequence[str], figures: bool) -> int:
    """The page and the figures of the paper's own table: they need no run, and check the drawing."""
    from benchmark.plan.config import compose, report_of
    from benchmark.records.book import Book
    from benchmark.records.files import replace
    from benchmark.report.page.build import page
    from benchmark.report.page.content import Source, content
    from benchmark.report.paper import PAPER, paper_rows
    from benchmark.report.tables import Tables

    other = [word for word in words if word.partition("=")[0] not in ("tau", "paths.results")]
    if other:
        raise UserError(f"source=paper reports on the paper's table alone: leave {' '.join(other)} out")
    paths, asked = report_of(compose(words))
    folder = Path(paths.results) / OF_PAPER
    rows = paper_rows(PAPER / "paper_tables.csv")
    replace(folder / "report.html", page(content(Source(Book(), [], [], rows, folder), asked.tau)).encode())
    written = [folder / "report.html"]
    if figures:
        written += _figures(folder / "figures", Tables())
    _told(written)
    say("these are the paper's numbers, not ours")
    return 0


WHAT = {
    "tables": "the paper's tables with ours beside them, each as .csv, .md and .tex",
    "figures": "each as .svg and .png",
}
"""What the files of a folder are, where they are too many to be listed."""


def _told(paths: Sequence[Path]) -> None:
    """Say what was written, a folder a line."""
    for folder in dict.fromkeys(path.parent for path in paths):
        own = sorted(path.name for path in paths if path.parent == folder)
        many = f"{len(own)} files" + (f" ({WHAT[folder.name]})" if folder.name in WHAT else "")
        say(f"written to {folder}: {', '.join(own) if len(own) < 4 else many}")
