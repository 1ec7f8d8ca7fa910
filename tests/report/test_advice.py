"""The answer for a user: the greenest row, its margin, and what would make it surer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.report.advice import Candidate, Question, advice, of_paper
from benchmark.report.crossovers import Cycle
from benchmark.report.greeness import Uncertain
from benchmark.report.paper import paper_rows
from tests.report.figure_rows import summary_row

PAPER = Path(__file__).parents[2] / "results/paper/paper_tables.csv"


def row(name: str, acc: float, tec: float, iec: float, half: float = 0.0, **words: str) -> Candidate:
    cycle = Cycle(Uncertain(acc, 0.0), Uncertain(tec, half * tec), Uncertain(iec, half * iec))
    return Candidate(name, words.get("group", "here"), cycle, "grade A, n = 3", words.get("doubts", ""))


def told(*rows: Candidate, mui: float = 1e8, least: float = 0.0) -> str:
    return "\n".join(advice(rows, Question(mui, least, 2.0)))


def test_the_greenest_is_named_with_its_runner_up_and_what_changes():
    cheap, frugal = row("cheap to make", 70, 10, 1e-6), row("frugal in use", 70, 100, 1e-7)
    said = told(cheap, frugal, mui=9e7)
    assert "greenest:  cheap to make" in said
    assert "runner-up: frugal in use" in said
    assert "margin:    " in said
    assert "more than the 95 % intervals leave open" in said
    assert "ten times fewer inferences: the same" in said
    assert "ten times more inferences: frugal in use" in said
    assert "up to 100 M inferences cheap to make; beyond that frugal in use" in said


def test_what_the_intervals_leave_open_is_a_tie_and_what_has_none_is_unknown():
    assert "take it as a tie" in told(row("one", 70, 10, 1e-6, 0.2), row("two", 70, 10.1, 1e-6, 0.2))
    unknown = Cycle(*(Uncertain(value, math.nan) for value in (70.0, 10.0, 1e-6)))
    bare = [Candidate(name, "here", unknown, "the paper", "") for name in ("one", "two")]
    assert "cannot be told: there are no intervals" in told(*bare)


def test_rows_that_other_work_disturbed_are_named_below_the_answer(monkeypatch, capsys):
    rows = [
        summary_row(name, others_pct=share, energy_source="estimate:tdp_load")
        for name, share in (("quiet", 4.0), ("disturbed", 48.0))
    ]
    monkeypatch.setattr("benchmark.advising._summary", lambda words, tau: rows)
    assert main(["advise", "mui=1e8"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "other programs took up to 48 % of the computer's CPU time beside 1 of these rows" in line
    monkeypatch.setattr("benchmark.advising._summary", lambda words, tau: rows[:1])
    assert main(["advise", "mui=1e8"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_one_seed_is_said_and_what_would_make_it_surer():
    said = told(row("one", 70, 10, 1e-6, doubts="more seeds (n = 1)"), row("two", 60, 10, 1e-6))
    assert "the spread between seeds is not in them" in said
    assert "what would make it surer: one: more seeds (n = 1)" in said


def test_rows_that_are_no_rivals_have_answers_of_their_own():
    said = told(row("one", 70, 10, 1e-6), row("two", 60, 1, 1e-9, group="another machine"))
    assert said.count("greenest:") == 2
    assert "by another machine:" in said


def test_nothing_accurate_enough_names_the_most_accurate():
    said = told(row("one", 70, 10, 1e-6), row("two", 75.5, 1, 1e-9), least=80)
    assert "nothing is that accurate: the most accurate is two (75.50 %)" in said
    assert "greenest" not in said


def test_the_papers_answer_for_200_million_inferences():
    said = "\n".join(advice(of_paper(paper_rows(PAPER)), Question(2e8, 70, 2)))
    assert "greenest:  INT8 on VGG16: G 21.2" in said
    assert "from 2.7 M to 1.5 billion inferences INT8 on VGG16" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["source=paper"], "mui=2e8"),
        (["mui=many", "source=paper"], "mui=many is no number"),
        (["mui=0", "source=paper"], "above 0"),
        (["mui=1e8", "min_acc=101", "source=paper"], "at most 100"),
        (["mui=1e8", "source=papers"], "there are records and paper"),
        (["muii=1e8"], "did you mean mui"),
        (["mui=1e8", "paths.results=/nowhere"], "source=paper answers"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(words, why, capsys):
    assert main(["advise", *words]) == 1
    assert why in capsys.readouterr().err


def test_the_command(capsys):
    assert main(["advise", "mui=2e8", "min_acc=70", "--tau=2", "source=paper"]) == 0
    assert capsys.readouterr().out.startswith("For 200,000,000 inferences, accuracy at least 70 %, tau 2")
