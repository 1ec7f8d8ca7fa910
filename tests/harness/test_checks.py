"""The judge: every kind of bad record is a fault, a good one is none."""

from __future__ import annotations

import json
import math

import pytest

from benchmark.records.store import Store
from benchmark.report.checks import check
from tests.harness.test_store import record


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", tmp_path / "artifacts")


def _faults(store: Store) -> list[str]:
    return [finding.what for finding in check(store) if finding.fault]


def test_a_good_record_is_no_fault(store):
    store.add(record())
    assert check(store) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"joules": 0.0}, "nothing costs nothing"),
        ({"joules": -5.0}, "nothing costs nothing"),
        ({"seconds": 0.0}, "nothing costs nothing"),
        ({"joules": math.nan}, "NaN without a reason"),
        ({"joules": 3.6e6}, "above the limit"),
        (
            {"joules": 30_000.0, "provenance": {"versions": {"python": "3", "torch": "2"}, "power_limit_w": 700}},
            "above the limit of 700",
        ),
        ({"seconds": 0.1, "joules": 10.0}, "too short for a meter"),
        ({"repeated_joules": -1.0}, "repeated energy is negative"),
        ({"commit": "unknown"}, "commit is unknown"),
        ({"source": ""}, "no source"),
        ({"device_name": ""}, "no device_name"),
        ({"provenance": {}}, "no version of python"),
        ({"grade": "Q"}, "unknown grade"),
        ({"values": {"acc_pct": 171.0}}, "no percentage"),
    ],
)
def test_a_bad_record_is_a_fault(store, values, said):
    store.add(record(**values))
    assert any(said in what for what in _faults(store))


def test_nan_with_a_reason_is_a_warning(store):
    store.add(record(joules=math.nan, reason="the counter was reset"))
    assert _faults(store) == []
    assert "the counter was reset" in check(store)[0].what


def test_code_that_no_commit_holds_is_a_warning(store):
    store.add(record(commit="abc+dirty"))
    (finding,) = check(store)
    assert not finding.fault


def test_an_estimate_may_be_short(store):
    store.add(record(source="estimate:tdp_load", grade="E", seconds=0.1, joules=1.0))
    assert check(store) == []


def test_a_file_that_is_no_record_is_a_fault(store):
    store.add(record())
    (path,) = store.record_paths()
    words = json.loads(path.read_text())
    words["surprise"] = 1
    path.write_text(json.dumps(words))
    assert "surprise" in _faults(store)[0]


def test_a_record_under_another_name_is_a_fault(store):
    store.add(record())
    (path,) = store.record_paths()
    path.rename(path.with_name("x" * 20 + ".json"))
    assert "holds the record of" in _faults(store)[0]


HONEST = {
    "joules": 3600.0,
    "values": {"acc_pct": 71.5, "iec_joules": math.nan},
    "reading": {"grade": "A", "n_samples": 800, "missing": {"dram_joules": "no zone"}},
    "provenance": {"versions": {"python": "3", "torch": "2"}, "power_limit_w": 700.0},
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("joules",), 1800.0),
        (("joules",), None),
        (("ci95_joules",), 0.1),
        (("seconds",), 36.1),
        (("grade",), "B"),
        (("source",), "nvml:samples"),
        (("reason",), "no reason"),
        (("values", "acc_pct"), 72.5),
        (("values", "iec_joules"), 1e-9),
        (("params",), {"lr": 0.1}),
        (("reading", "n_samples"), 801),
        (("provenance", "power_limit_w"), 701.0),
        (("created",), "2026-01-02T00:00:00"),
        (("commit",), "def"),
        (("device_name",), "another board"),
        (("repeat",), True),
        (("digest",), "0" * 64),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_a_record_edited_by_hand_is_a_fault(store, place, value):
    """Every kind of edit, also where the new value looks just as plausible as the old one."""
    store.add(record(**HONEST))
    assert check(store) == []
    (path,) = store.record_paths()
    words = json.loads(path.read_text())
    inner = words
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(words, indent=1))
    assert any("was edited by hand" in what for what in _faults(store))


@pytest.mark.parametrize("name", ["reading", "joules", "digest", "repeat"])
def test_a_record_with_a_part_cut_out_is_a_fault(store, name):
    store.add(record(**HONEST))
    (path,) = store.record_paths()
    words = json.loads(path.read_text())
    del words[name]
    path.write_text(json.dumps(words))
    assert _faults(store)


def test_the_layout_of_the_file_is_no_edit(store):
    store.add(record(**HONEST))
    (path,) = store.record_paths()
    words = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(words.items()))))
    assert check(store) == []
