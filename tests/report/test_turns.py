"""Who is best where, and from where on a row beats its baseline."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmark.report.crossovers import Cycle, crossover
from benchmark.report.greeness import Uncertain
from benchmark.report.pairs import pairs
from benchmark.report.summary import EMPTY, SummaryRow
from benchmark.report.turns import break_even, even_words, reigns, sentence, with_break_evens
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


def row(method: str, name: str, **changes) -> SummaryRow:
    of = ROWS[name]
    own = {
        "method": method, "acc_pct": of.acc_pct, "tec_wh": of.tec_wh, "iec_wh": of.iec_wh, "tau": 2.0, "n_seeds": 1,
        "base_wh": ROWS[BASE].tec_wh,
    }  # fmt: skip  # one value a line would hide the row
    return SummaryRow(**(EMPTY | own | changes))


def test_break_even_of_summary_rows_is_that_against_their_baseline():
    none, found = with_break_evens([row("baseline", BASE), row("pruning/apoz", APOZ)])
    assert none.break_even == "" == even_words(none)
    assert found.break_even == "from"
    assert found.break_even_mui == pytest.approx(97.9e6, rel=0.01)
    assert math.isnan(found.break_even_low), "without intervals of the energies there is none"
    assert even_words(found) == "greener than its baseline from 98 M inferences"


def test_what_may_begin_anywhere_is_no_claim():
    open_ended = row("pruning/apoz", APOZ, break_even="from", break_even_mui=3100.0, break_even_low=0.0,
                     break_even_high=math.inf)  # fmt: skip  # one row
    assert even_words(open_ended) == (
        "perhaps greener than its baseline from 3.1 thousand inferences; the intervals do not tell"
    )
    known = replace(open_ended, break_even_low=100.0)
    assert even_words(known) == "greener than its baseline from 3.1 thousand inferences (95 %: 100 to no end)"


def test_unequal_numbers_of_seeds_are_named():
    base, many = row("baseline", BASE), row("pruning/apoz", APOZ, n_seeds=3)
    told = even_words(with_break_evens([base, many])[1])
    assert told == "greener than its baseline from 98 M inferences; n = 3 against n = 1 of the baseline"
    assert " against n" not in even_words(with_break_evens([base, replace(many, n_seeds=1)])[1])


def test_what_the_intervals_do_not_tell_is_not_told():
    """Dearer to make and to use at the same accuracy, so it never wins: by more than the intervals, or not."""
    sure = {"acc_ci95_pct": 0.0, "tec_ci95_wh": 0.0, "iec_ci95_wh": 0.0}
    own = {"acc_pct": 70.0, "tec_wh": 101.0, "iec_wh": 1.01e-6, "base_wh": 100.0}
    base = {"acc_pct": 70.0, "tec_wh": 100.0, "iec_wh": 1e-6, "base_wh": 100.0}
    for known, kind in ((sure, "never"), ({**sure, "tec_ci95_wh": 5.0, "iec_ci95_wh": 5e-8}, "unclear")):
        _, found = with_break_evens([row("baseline", BASE, **base, **known), row("pruning/apoz", APOZ, **own, **known)])
        assert found.break_even == kind
    assert even_words(found) == "whether it is greener than its baseline, the intervals do not tell"


def test_break_even_with_its_interval_in_words():
    known = {"acc_ci95_pct": 0.0, "tec_ci95_wh": 1.0, "iec_ci95_wh": 1e-9}
    _, found = with_break_evens([row("baseline", BASE, **known), row("pruning/apoz", APOZ, **known)])
    assert found.break_even_low < found.break_even_mui < found.break_even_high
    assert "inferences (95 %: " in even_words(found)
    wide = {"acc_ci95_pct": 0.0, "tec_ci95_wh": 1.0, "iec_ci95_wh": 1e-6}
    _, lost = with_break_evens([row("baseline", BASE, **wide), row("pruning/apoz", APOZ, **wide)])
    assert even_words(lost).endswith("to no end)")
    assert even_words(replace(lost, break_even="never")) == "never greener than its baseline"


def test_the_largest_tau_and_a_row_that_spent_nothing_end_in_no_error():
    best, other = _plain(73, 138, 9e-7), _plain(70, 150, 5e-7)
    at = crossover(best, other, 100.0)
    assert math.isnan(at.mui) or at.mui > 0
    assert crossover(best, other, 2.0).mui == pytest.approx(
        -(73**2 * 150 - 70**2 * 138) / (73**2 * 5e-7 - 70**2 * 9e-7)
    )
    assert break_even(_plain(70, 0, 0), best).kind in ("never", "always", "unknown")
    assert break_even(_plain(0, 1, 1), _plain(0, 1, 1)).kind == "never"
    assert reigns({"nothing": _plain(70, 0, 0), "best": best})


def test_every_pair_of_the_paper_and_the_sentence():
    laid = pairs([], list(ROWS.values()))
    raw = laid.raw.set_index(["one", "other"])
    assert raw.loc[(BASE, APOZ), "mui"] == pytest.approx(97.9e6, rel=0.01)
    assert [cell["best"] for cell in laid.cells][-1] == "ResNet56->ResNet20 KD"
    assert "1.5 billion" in laid.notes[0]
