"""What rows say of the engine: what it executes, how far it agrees with its network, and a warning where it lost much."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmark.report.deployed import MAX_DROP_PCT, of_engine
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.report.tables import footnotes
from tests.harness.test_records_hold import Lab


def _record(network_pct=71.0, engine_pct=70.0, **executes):
    values = {"acc_pct": engine_pct, "network_acc_pct": network_pct, "agreement_pct": 98.5}
    told = {"precision": "int8 in 9 of 10 layers", "layout": "ort", "comparable_to_tensorrt": False, **executes}
    return SimpleNamespace(values=values, details={"executes": told})


@pytest.mark.parametrize(
    ("precision", "lost", "warned"),
    [("int8", 2.99, False), ("int8", 3.01, True), ("fp16", 0.49, False), ("fp16", 0.51, True), ("int8", -9.0, False)],
)
def test_a_drop_beyond_what_is_allowed_is_a_warning(precision, lost, warned):
    said = of_engine(_record(70.0, 70.0 - lost), precision, MAX_DROP_PCT)["warning"]
    assert bool(said) is warned
    if warned:
        assert f"{lost:.2f} points are lost" in said
        assert "PyTorch 70.00 %" in said


def test_the_allowance_can_be_set_and_what_is_unknown_warns_of_nothing():
    assert of_engine(_record(), "int8", {"int8": 0.5})["warning"].endswith("0.5 are allowed (max_drop_pct)")
    assert of_engine(_record(), "int8", {})["warning"] == ""
    assert of_engine(_record(network_pct=math.nan), "int8", {"int8": 0.5})["warning"] == ""
    assert of_engine(None, "int8", {"int8": 0.5})["executed_precision"] == ""
    old = SimpleNamespace(values={"acc_pct": 1.0}, details={})  # a record from before engines said so
    assert of_engine(old, "fp32", MAX_DROP_PCT)["comparable_to_tensorrt"] == ""


def test_a_row_says_what_is_executed_from_building_to_the_summary(tmp_path):
    lab = Lab(tmp_path)
    lab.run(lab.experiment())
    found = stage_rows(lab.book())
    assert [row.executed_precision for row in found] == ["", "fp32", "fp32"], "training, engine, inference"
    assert [row.comparable_to_tensorrt for row in found] == ["", "no", "no"]
    assert found[1].agreement_pct == found[2].agreement_pct == 100
    (row,) = summarise(lab.book(), found)
    assert (row.executed_precision, row.layout, row.comparable_to_tensorrt) == ("fp32", "channels_last", "no")
    assert row.agreement_pct == 100
    assert row.warning == ""


def test_the_printed_table_says_what_was_not_run_as_asked_and_what_lost_too_much(tmp_path):
    lab = Lab(tmp_path)
    lab.run(lab.experiment())
    (row,) = lab.summary()
    assert not [line for line in footnotes([row]) if "runs fp32" in line or "warning" in line]
    odd = replace(
        row, deploy_precision="fp16", executed_precision="fp32 compute, fp16-rounded weights", warning="lost it"
    )
    lines = footnotes([row, odd])
    assert "torch runs fp16 as fp32 compute, fp16-rounded weights" in lines
    assert f"warning: {row.experiment}: lost it" in lines
