"""What stands below the summary: everything a reader must know before quoting a number."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmark.report.tables import footnotes

ROW = {
    "experiment": "one", "energy_source": "nvml:energy_counter", "tau": 2.0, "rank_1b": "1", "grade": "A", "scale": "full",
    "missing": "", "n_seeds": 3,
}  # fmt: skip  # one value a line would hide the shape


def _notes(**changed):
    return footnotes(pd.DataFrame([ROW, {**ROW, **changed}]))


def test_a_plain_table_says_its_meter_and_its_exponent():
    assert _notes() == ["energy from nvml:energy_counter; G in percent^tau per W.h, tau = 2; ± is a 95 % interval"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rank_1b": "1-3"}, "a rank such as 1-3 is a tie"),
        ({"n_seeds": 1}, "not the spread between seeds"),
        ({"grade": "E"}, "estimated, not measured"),
        ({"scale": "small"}, "say nothing about a method"),
        ({"missing": "seed 1: infer"}, "incomplete: one: seed 1: infer"),
        ({"energy_source": "estimate:tdp_load"}, "energy from estimate:tdp_load, nvml:energy_counter;"),
    ],
)
def test_what_weakens_a_row_is_said_once(changed, said):
    (note,) = [line for line in _notes(**changed) if said in line]
    assert note not in _notes()
