"""The printed summary: rows that can be told apart, and what a reader must know before quoting a number."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from benchmark.plan.life import lives
from benchmark.report.summary import SHOWN, SUMMARY_COLUMNS, tell_apart
from benchmark.report.tables import footnotes, show
from tests.harness.helpers import HERE, tiny_experiment

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


def _lives(root, *methods):
    found = {}
    for number, method in enumerate(methods):
        plain = tiny_experiment(root)
        target = {
            "_target_": "methods.pruning.plan.Pruning",
            "name": "pruning/l1",
            "criterion": "methods.pruning.criteria.l1:l1",
        }
        life = lives(plain.model_copy(update={"method": {**target, **method}}), HERE)[0]
        found[str(number), "here", "here"] = life
    return found


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([{}], [""]),
        ([{"sparsity": 0.3}, {"sparsity": 0.5}], ["sparsity=0.3", "sparsity=0.5"]),
        ([{"sparsity": 0.3}, {}], ["sparsity=0.3", ""]),
        ([{"mode": "independent", "layers": "all"}, {"mode": "dependency_aware", "layers": "all"}],
         ["mode=independent", "mode=dependency_aware"]),
    ],
)  # fmt: skip  # a case a line
def test_rows_that_would_look_alike_say_in_what_they_differ(tmp_path, methods, expected):
    found = _lives(tmp_path, *methods)
    rows = [dict.fromkeys(SHOWN, "the same") for _ in methods]
    tell_apart(rows, found)
    assert [row["settings"] for row in rows] == expected


def test_rows_that_do_not_look_alike_need_no_settings(tmp_path):
    rows = [{**dict.fromkeys(SHOWN, "the same"), "model": model} for model in ("one", "other")]
    tell_apart(rows, _lives(tmp_path, {"sparsity": 0.3}, {"sparsity": 0.5}))
    assert [row["settings"] for row in rows] == ["", ""]


def test_settings_have_a_column_and_an_unknown_number_no_tilde():
    row = {
        **dict.fromkeys(SUMMARY_COLUMNS, math.nan),
        **dict.fromkeys(SHOWN, "x"),
        **ROW,
        "teacher": "",
        "settings": "a=1",
    }
    console = Console(width=160, record=True, file=io.StringIO())
    show(pd.DataFrame([{**row, "grade": "E"}, {**row, "settings": "a=2"}]), console)
    text = console.export_text()
    assert "settings" in text
    assert "a=1" in text
    assert "~-" not in text


@pytest.mark.parametrize("width", [80, 110, 160])
def test_no_number_is_ever_cut(width):
    long = {
        "method": "pruning/activation_mean", "model": "repdistiller/MobileNetV2", "acc_pct": 71.25, "grade": "E",
        "tec_wh": 0.06135, "tec_ci95_wh": 0.0245, "iec_wh": 1.329e-05, "iec_ci95_wh": 1.3e-06, "g_500m": 7.525e-05,
        "g_1b": 3.525e-05, "settings": "mode=dependency_aware sparsity=0.25",
    }  # fmt: skip  # one value a line would hide the shape
    row = {**dict.fromkeys(SUMMARY_COLUMNS, math.nan), **dict.fromkeys(SHOWN, "x"), **ROW, "teacher": "", **long}
    console = Console(width=width, record=True, file=io.StringIO())
    show(pd.DataFrame([row]), console)
    text = console.export_text()
    for number in ("71.25", "~0.06135 ±40%", "~1.329e-05 ±9.8%", "~3.525e-05"):
        assert number in text
    assert "…" not in text
