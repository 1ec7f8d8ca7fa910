"""The verdict on Table 3: our rows beside the paper's, every deviation named. Exit status 0 where it is reproduced."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark.records.book import Book
from benchmark.records.files import replace
from benchmark.records.store import Store
from benchmark.report.beside import beside_paper
from benchmark.report.paper import PAPER, paper_rows
from benchmark.report.reproduction import our_names, pair_up, verdict
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.streams import unbreakable


def main() -> int:
    """Print the verdict, and write the table beside the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the results folder (default: results)")
    results = parser.parse_args().results
    if not results.is_dir():
        print(f"error: there is no results folder {results}: make table3 first, or --results DIR", file=sys.stderr)
        return 1
    book = Book.read(Store(results, Path("artifacts")))
    rows, names = paper_rows(PAPER / "paper_tables.csv"), our_names(PAPER / "ours.csv")
    stages = stage_rows(book)
    summary = summarise(book, stages)
    pairs = pair_up(rows, names, book, summary)
    (laid,) = (each for each in beside_paper(PAPER, book, stages, summary) if each.name == "against_paper")
    for name, text in laid.files().items():
        replace(results / "tables" / name, text.encode())
    judged = verdict(pairs)
    print("\n".join([*judged.lines, f"written: {results / 'tables' / 'against_paper.*'}"]))
    return 0 if judged.reproduced else 1


if __name__ == "__main__":
    with unbreakable():
        sys.exit(main())
