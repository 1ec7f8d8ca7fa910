"""The paper's rows, and where they cross (section 4.2.1 of the paper, recomputed)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmark.errors import UserError
from benchmark.report.crossovers import Cycle, crossover
from benchmark.report.greeness import Uncertain, greeness
from benchmark.report.paper import PaperRow, paper_rows

PAPER = Path(__file__).parents[2] / "results" / "paper" / "paper_tables.csv"
ROWS = {row.name: row for row in paper_rows(PAPER)}
BASE, APOZ, FPGM, INT8 = (f"VGG16 {name}" for name in ("Base training", "APoZ", "FPGM", "INT8"))
CRD8, KD8, CRD20 = "VGG13->VGG8 CRD", "VGG13->VGG8 KD", "ResNet56->ResNet20 CRD"
NAS_100, NAS_10 = (f"PyramidNet with modifications ProxylessNAS ({data})" for data in ("CIFAR-100", "CIFAR-10"))


def _cycle(row: PaperRow, relative: float = math.nan) -> Cycle:
    values = (row.acc_pct, row.tec_wh, row.iec_wh)
    return Cycle(*(Uncertain(value, value * relative) for value in values))


@pytest.mark.parametrize(
    ("one", "other", "millions", "half_unit"),
    [
        (BASE, APOZ, 97.9, 0.05), (BASE, "VGG16 TaylorFO", 68.4, 0.05), (BASE, "VGG16 L1Filter", 77.4, 0.05),
        (BASE, "VGG16 ActivationMean", 99.8, 0.05), (BASE, "VGG16 L2Filter", 104.1, 0.05), (BASE, FPGM, 120.6, 0.05),
        (BASE, CRD8, 459, 0.5), (BASE, NAS_100, 358, 0.5), (APOZ, NAS_100, 3120, 5), (FPGM, NAS_100, 1320, 5),
        (APOZ, NAS_10, 1520, 5), (APOZ, CRD8, 4200, 5), (FPGM, CRD8, 1820, 5), (APOZ, CRD20, 950, 5),
        (INT8, CRD20, 1840, 5), (BASE, INT8, 1.8, 0.05),
    ],
)  # fmt: skip  # one value a line would hide the table
def test_crossovers_of_the_papers_rows(one, other, millions, half_unit):
    found = crossover(_cycle(ROWS[one]), _cycle(ROWS[other])).mui / 1e6
    assert abs(found - millions) <= max(0.01 * millions, half_unit)


def test_nobody_overtakes_a_row_that_is_better_in_everything():
    better = PaperRow("", "a", "", "x", 71, 100, 5e-7)
    assert math.isnan(crossover(_cycle(better), _cycle(PaperRow("", "b", "", "x", 70, 110, 6e-7))).mui)


def test_the_interval_holds_the_crossing_and_widens_to_infinity():
    narrow = crossover(_cycle(ROWS[BASE], 0.001), _cycle(ROWS[APOZ], 0.001))
    assert 0 < narrow.low < narrow.mui < narrow.high < math.inf
    wide = crossover(_cycle(ROWS[APOZ], 0.02), _cycle(ROWS[NAS_100], 0.02))
    assert wide.low < wide.mui
    assert wide.high == math.inf
    assert math.isnan(crossover(_cycle(ROWS[BASE]), _cycle(ROWS[APOZ])).low)


def test_g_is_equal_where_rows_cross():
    one, other = ROWS[KD8], ROWS[INT8]
    mui = crossover(_cycle(one), _cycle(other)).mui
    assert one.g(mui) == pytest.approx(other.g(mui), rel=1e-9)
    assert one.g(1e9) == greeness(one.acc_pct, one.tec_wh, one.iec_wh, 1e9)


def test_every_method_of_the_tables_is_a_row_once():
    assert len(ROWS) == 19
    assert {row.source for row in ROWS.values()} == {"paper"}


@pytest.mark.parametrize("text", ["", "table\n5\n", "a,b\n1,2\n"])
def test_a_damaged_table_is_told_in_one_line(tmp_path, text):
    path = tmp_path / "paper_tables.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="restore the file") as told:
        paper_rows(path)
    assert "\n" not in str(told.value)
