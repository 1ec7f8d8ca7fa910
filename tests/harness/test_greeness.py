"""G against every row of the paper's tables."""

from __future__ import annotations

import csv
import math
from decimal import Decimal
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmark.report.greeness import Uncertain, greeness, greeness_ci95, rank_ranges

PAPER = Path(__file__).parents[2] / "results" / "paper" / "paper_tables.csv"
ROWS = [row for row in csv.DictReader(PAPER.read_text().splitlines()) if row["g_500m"] or row["g_1b"]]


def _half_unit(printed: str) -> float:
    """Half a unit of the last printed digit."""
    exponent = Decimal(printed).as_tuple().exponent
    return 0.5 * 10.0 ** int(exponent)


def _corners(printed: str) -> tuple[float, float]:
    return float(printed) - _half_unit(printed), float(printed) + _half_unit(printed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"table{row['table']}-{row['model_or_pair']}-{row['method']}")
def test_every_printed_value_is_reproduced_within_print_rounding(row):
    for column, mui in (("g_500m", 5e8), ("g_1b", 1e9)):
        if not row[column]:
            continue
        inputs = product(*(_corners(row[name]) for name in ("acc_pct", "tec_wh", "iec_wh")))
        reachable = [greeness(*corner, mui, float(row["tau"])) for corner in inputs]
        low, high = _corners(row[column])
        assert min(reachable) <= high
        assert max(reachable) >= low


def test_all_rows_were_read():
    assert len(ROWS) >= 30
    assert {row["table"] for row in ROWS} == {"3", "5"}


def test_one_row_by_hand():
    """VGG16: 73.37^2 / (5e8 x 8.931e-7 + 138.59) = 5383.16 / 585.14."""
    assert greeness(73.37, 138.59, 8.931e-7, 5e8) == pytest.approx(9.2, abs=0.005)


def test_without_use_only_training_counts():
    assert greeness(50, 100, 1e-6, 0, tau=1) == pytest.approx(0.5)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_nan_stays_nan(position):
    values = [70.0, 100.0, 1e-6]
    values[position] = math.nan
    assert math.isnan(greeness(*values, 1e9))


@pytest.mark.parametrize("values", [(-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1), (1, 1, 1, -1), (101, 1, 1, 1)])
def test_nonsense_is_refused(values):
    with pytest.raises(ValueError, match=r"must not be negative|in percent"):
        greeness(*values)


def test_the_interval_of_g_is_that_of_simulated_inputs():
    """200,000 normal draws of accuracy, TEC and IEC: the spread of G is what the first-order formula says."""
    draws = np.random.default_rng(1).normal(size=(3, 200_000)) / 1.96
    acc, tec, iec = 70 + 0.4 * draws[0], 140 + 3 * draws[1], 9e-7 + 1e-8 * draws[2]
    simulated = 1.96 * np.std(acc**2 / (5e8 * iec + tec))
    assert greeness_ci95(Uncertain(70, 0.4), Uncertain(140, 3), Uncertain(9e-7, 1e-8), 5e8) == pytest.approx(
        simulated, rel=0.01
    )


def test_without_uncertainty_the_interval_is_nothing_and_unknown_stays_unknown():
    assert greeness_ci95(Uncertain(70, 0.0), Uncertain(140, 0.0), Uncertain(9e-7, 0.0), 5e8) == 0
    assert math.isnan(greeness_ci95(Uncertain(70, 0.0), Uncertain(140, math.nan), Uncertain(9e-7, 0.0), 5e8))


def test_ranks_inside_the_interval_are_ties():
    assert rank_ranges([3.0, 1.0, 2.0], [0.1, 0.1, 0.1]) == [(1, 1), (3, 3), (2, 2)]
    assert rank_ranges([3.0, 2.9, 1.0], [0.1, 0.1, 0.1]) == [(1, 2), (1, 2), (3, 3)]
    assert rank_ranges([3.0, 2.0, 1.0], [0.0, math.nan, 0.0]) == [(1, 2), (1, 3), (2, 3)]
    assert rank_ranges([math.nan, 2.0, 1.0], [0.0, 0.0, 0.0]) == [None, (1, 1), (2, 2)]


def test_a_tie_needs_not_carry_over():
    """a ties with b and b with c, yet a is above c: ranges say all three."""
    assert rank_ranges([3.0, 2.0, 1.0], [1.0, 1.0, 0.9]) == [(1, 2), (1, 3), (2, 3)]


def test_where_nothing_was_spent_there_is_no_number():
    assert math.isnan(greeness(50, 0, 0, 1))
