"""G at the numbers of inferences that a user names. Golden numbers are reckoned by hand."""

from __future__ import annotations

import math

import pytest

from benchmark.report.by_mui import MuiRow, best_first, by_mui, cells, heading
from benchmark.report.columns import names
from benchmark.report.summary import EMPTY, SummaryRow, ranked

SURE = {
    "n_seeds": 1,
    "tau": 2.0,
    "acc_ci95_pct": 0.0,
    "tec_ci95_wh": 0.0,
    "iec_ci95_wh": 0.0,
    "grade": "A",
    "energy_source": "nvml:counter",
}


def row(experiment: str, acc_pct: float, tec_wh: float, iec_wh: float, **values) -> SummaryRow:
    own = {"experiment": experiment, "method": experiment, "acc_pct": acc_pct, "tec_wh": tec_wh, "iec_wh": iec_wh}
    return SummaryRow(**(EMPTY | SURE | own | values))


CHEAP, FRUGAL = row("cheap", 50.0, 100.0, 1e-5), row("frugal", 60.0, 300.0, 1e-6)
"""The first costs little to make, the second little to use."""


def test_g_rank_and_energy_at_each_mui_by_hand():
    few_cheap, few_frugal, many_cheap, many_frugal = by_mui([CHEAP, FRUGAL], [1e6, 1e8], tau=2)
    assert (few_cheap.mui, many_frugal.mui) == (1e6, 1e8)
    assert few_cheap.spent_wh == pytest.approx(110)
    assert few_cheap.g == pytest.approx(2500 / 110)
    assert few_frugal.g == pytest.approx(3600 / 301)
    assert (few_cheap.rank, few_frugal.rank) == ("1", "2")
    assert many_cheap.g == pytest.approx(2500 / 1100)
    assert many_frugal.g == pytest.approx(3600 / 400)
    assert (many_cheap.rank, many_frugal.rank) == ("2", "1")
    assert [each.tau for each in by_mui([CHEAP], [0], tau=1)] == [1]
    assert by_mui([CHEAP], [0], tau=1)[0].g == pytest.approx(0.5)


def test_the_best_row_comes_first_and_rivals_stay_together():
    other, unknown = row("other", 99.0, 1.0, 1e-9, classes=10), row("unknown", math.nan, 1.0, 1e-9)
    rows = [unknown, CHEAP, other, FRUGAL]
    assert [each.experiment for each in best_first(rows, 1e6)] == ["cheap", "frugal", "unknown", "other"]
    assert [each.experiment for each in best_first(rows, 1e8)] == ["frugal", "cheap", "unknown", "other"]


def test_intervals_make_ties():
    one = row("one", 50.0, 100.0, 0.0, tec_ci95_wh=10.0)
    other = row("other", 50.0, 105.0, 0.0, tec_ci95_wh=10.0)
    first, second = by_mui([one, other], [1e6])
    assert first.g_ci95 == pytest.approx(2.5)  # a tenth of 25
    assert (first.rank, second.rank) == ("1-2", "1-2")


def test_at_half_a_billion_it_is_the_summarys_own_g():
    whole = row("whole", 70.0, 100.0, 1e-7, acc_ci95_pct=1.0, tec_ci95_wh=3.0, iec_ci95_wh=1e-9, n_seeds=3)
    (found,) = by_mui([whole], [5e8])
    assert found.g == pytest.approx(4900 / 150)
    # relative: 2 x 1/70, 3/150, 0.5/150
    assert found.g_ci95 == pytest.approx(4900 / 150 * math.hypot(2 / 70, 3 / 150, 0.5 / 150))
    (same,) = ranked([row("same", 70.0, 100.0, 1e-7, g_500m=found.g, g_500m_ci95=found.g_ci95)])
    assert same.rank_500m == found.rank == "1"


def test_what_is_unknown_has_no_g_and_no_rank():
    lost, known = by_mui([row("lost", 50.0, math.nan, 1e-6), CHEAP], [1e6])
    assert math.isnan(lost.g)
    assert lost.rank == ""
    assert known.rank == "1"
    (nothing,) = by_mui([row("nothing", 50.0, 0.0, 0.0)], [1e6])
    assert math.isnan(nothing.g), "no meter saw anything, so nothing can be divided by it"
    assert by_mui([], [1e6]) == by_mui([CHEAP], []) == []


def test_rivals_alone_are_ranked():
    first, second = by_mui([CHEAP, row("other", 60.0, 50.0, 0.0, data="cifar10")], [1e6])
    assert (first.rank, second.rank) == ("1", "1")


def test_cells_mark_estimates_and_the_unknown():
    rows = [CHEAP, row("about", 50.0, 100.0, 1e-5, grade="E"), row("lost", 50.0, math.nan, 0.0)]
    assert cells(rows, [1e6, 5e8]) == [
        {"G(1M)": "22.73", "rank(1M)": "1-2", "G(500M)": "0.4902", "rank(500M)": "1-2"},
        {"G(1M)": "~22.73", "rank(1M)": "1-2", "G(500M)": "~0.4902", "rank(500M)": "1-2"},
        {"G(1M)": "-", "rank(1M)": "-", "G(500M)": "-", "rank(500M)": "-"},
    ]
    mixed = row("mixed", 50.0, 100.0, 1e-5, grade="X", energy_source="nvml:counter+estimate:tdp_load")
    assert cells([mixed], [1e6])[0]["G(1M)"].startswith("~")
    assert cells([CHEAP], []) == [{}]


@pytest.mark.parametrize(
    ("mui", "told"), [(0, "G(0)"), (999, "G(999)"), (1500, "G(1.5k)"), (2.5e7, "G(25M)"), (1e9, "G(1B)")]
)
def test_headings_are_short(mui, told):
    assert heading(mui) == told


def test_no_two_headings_are_the_same():
    assert len({heading(mui) for mui in (1e6, 1e6 + 1, 1e9 + 1, 1e9, 999999)}) == 5


def test_the_file_says_how_its_numbers_are_known():
    assert names(MuiRow)[:5] == ["experiment", "method", "model", "settings", "mui"]
    assert {"g", "g_ci95", "rank", "spent_wh", "grade"} <= set(names(MuiRow))
