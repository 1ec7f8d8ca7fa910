"""The paper's rows beside ours, and the verdict: what counts, what is missing, and why."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.records.book import Book
from benchmark.report.paper import paper_rows
from benchmark.report.reproduction import our_names, pair_up, table, verdict
from benchmark.report.summary import EMPTY, SummaryRow
from tests.report.figure_rows import PlannedRun

PAPER = Path(__file__).parents[2] / "results/paper"
NAMES = our_names(PAPER / "ours.csv")


def named(paper) -> dict[str, str]:
    return NAMES[paper.family, paper.model, paper.search, paper.method]


def ours(paper, **changes) -> SummaryRow:
    """A measured row of ours with the paper's numbers."""
    own = named(paper)
    words = {
        "method": own["our_method"], "teacher": own["our_teacher"], "model": own["our_model"],
        "data": "cifar100", "scale": "full", "profile": "fast", "grade": "A", "n_seeds": 3, "tau": 2.0,
        "train_machine": "m", "infer_machine": "m", "experiment": paper.name,
    }  # fmt: skip
    numbers = {"acc_pct": paper.acc_pct, "tec_wh": paper.tec_wh, "iec_wh": paper.iec_wh, "g_1b": paper.g(1e9)}
    blank = dict.fromkeys(SummaryRow.__dataclass_fields__, "") | EMPTY
    return SummaryRow(**{**blank, **words, **numbers, **changes})


@pytest.fixture
def papers():
    return paper_rows(PAPER / "paper_tables.csv")


def book_of(papers) -> Book:
    """Runs that say on which data each row searched."""
    book = Book()
    book.runs = [PlannedRun(paper.name, {"data.search": named(paper)["our_search"] or "cifar100"}) for paper in papers]
    return book


def test_the_papers_rows_are_read_and_recomputed(papers):
    assert len(papers) == 19
    with (PAPER / "paper_tables.csv").open(newline="") as file:
        printed = [row for row in csv.DictReader(file) if row["table"] == "3"]
    by_name = {(paper.model, paper.search, paper.method): paper for paper in papers}
    for row in printed:
        paper = by_name[row["model_or_pair"], row["search_dataset"], row["method"]]
        assert paper.g(1e9) == pytest.approx(float(row["g_1b"]), rel=0.006)


def test_the_papers_own_numbers_are_a_reproduction(papers):
    pairs = pair_up(papers, NAMES, book_of(papers), [ours(paper) for paper in papers])
    assert all(pair.row is not None and pair.row.experiment == pair.paper.name for pair in pairs)
    judged = verdict(pairs)
    assert judged.reproduced
    assert judged.lines[0] == "Table 3 is reproduced"
    assert table(pairs)["g_1b_relative"].abs().max() < 1e-9


def test_a_row_that_is_far_missing_or_out_of_order_is_no_reproduction(papers):
    rows = [ours(paper) for paper in papers]
    far = verdict(pair_up(papers, NAMES, book_of(papers), [replace(rows[0], acc_pct=rows[0].acc_pct + 1.5), *rows[1:]]))
    assert not far.reproduced
    assert any("+1.50 points from it" in line for line in far.lines)
    fewer = verdict(pair_up(papers, NAMES, book_of(papers), rows[1:]))
    assert fewer.lines[0] == "Table 3 is NOT reproduced: 1 rows are missing"
    turned = [replace(row, iec_wh=1e-12 / row.iec_wh) for row in rows]
    assert "the ranks do not agree" in verdict(pair_up(papers, NAMES, book_of(papers), turned)).lines[0]
    mixed = [replace(rows[0], train_machine="another"), *rows[1:]]
    assert not verdict(pair_up(papers, NAMES, book_of(papers), mixed)).reproduced


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scale": "smoke"}, "it was run at scale=smoke"),
        ({"profile": "published"}, "profile=published alone"),
        ({"grade": "E"}, "its energy is not measured (grade E)"),
        ({"n_seeds": 0, "missing": "seed 0: train"}, "it is not complete: seed 0: train"),
        ({"g_1b": math.nan}, "it is not complete"),
        ({"data": "synthetic"}, "it was not run"),
    ],
)
def test_what_does_not_count_is_named_with_its_reason(papers, change, why):
    rows = [ours(paper, **(change if number == 0 else {})) for number, paper in enumerate(papers)]
    first = pair_up(papers, NAMES, book_of(papers), rows)[0]
    assert first.row is None
    assert why in first.why
    assert any(why in line for line in verdict([first]).lines)


def test_a_search_on_other_data_is_another_row(papers):
    searched = [paper for paper in papers if named(paper)["our_method"] == "nas/darts"]
    pairs = pair_up(searched, NAMES, book_of(searched), [ours(paper) for paper in searched])
    assert [pair.row.experiment for pair in pairs] == [paper.name for paper in searched]
