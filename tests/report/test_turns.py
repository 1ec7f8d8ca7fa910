"""Who is best where, and from where on a row beats its baseline."""

from __future__ import annotations

import math

import pytest

from benchmark.report.crossovers import Cycle
from benchmark.report.greeness import Uncertain
from benchmark.report.summary import EMPTY, SummaryRow
from benchmark.report.turns import break_even, break_evens, reigns, sentence
from tests.report.test_paper import APOZ, BASE, INT8, KD8, ROWS, _cycle


def test_the_papers_sentence_on_who_is_best_where():
    told = sentence(reigns({name: _cycle(row) for name, row in ROWS.items()}))
    assert f"from 2.7 M to 1.5 billion inferences {INT8}; from 1.5 billion to 2.1 billion inferences {KD8}" in told
    assert told.endswith("beyond that ResNet56->ResNet20 KD")  # the highest accuracy^2 / IEC of all


def _plain(acc_pct: float, tec_wh: float, iec_wh: float) -> Cycle:
    return Cycle(*(Uncertain(value, 0.0) for value in (acc_pct, tec_wh, iec_wh)))


@pytest.mark.parametrize(
    ("row", "kind"),
    [((70, 110, 5e-7), "from"), ((70, 110, 7e-7), "never"), ((70, 90, 5e-7), "always"), ((70, 90, 7e-7), "below"),
     ((70, math.nan, 7e-7), "unknown")],
)  # fmt: skip  # one value a line would hide the table
def test_kinds_of_break_even(row, kind):
    assert break_even(_plain(*row), _plain(70, 100, 6e-7)).kind == kind


def test_break_even_of_summary_rows_is_that_against_their_baseline():
    def row(method: str, name: str) -> SummaryRow:
        of = ROWS[name]
        base = ROWS[BASE].tec_wh
        own = {"method": method, "acc_pct": of.acc_pct, "tec_wh": of.tec_wh, "iec_wh": of.iec_wh, "base_wh": base}
        return SummaryRow(**(EMPTY | own))

    none, found = break_evens([row("baseline", BASE), row("pruning/apoz", APOZ)])
    assert none is None
    assert found is not None
    assert found.kind == "from"
    assert found.at.mui == pytest.approx(97.9e6, rel=0.01)
