"""The judge: every kind of bad record is a fault, a good one is none."""

from __future__ import annotations

import json
import math

import pytest

from benchmark.plan.run_file import RunFile, RunStage, Words
from benchmark.plan.stage import Phase
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.checks import check
from benchmark.report.rows import stage_rows
from tests.harness.test_store import record

WORDS = Words(
    method="m", model="n", teacher="", data="d", classes=2, recipe="r", scale="full", train_images=1, test_images=1,
    max_epochs=None, profile="fast", train_precision="fp32", deploy_precision="fp32", engine="torch", engine_version="2",
)  # fmt: skip  # one value a line would hide the shape


def run(*stages: RunStage) -> RunFile:
    """A run with these stages on the machine `here`."""
    return RunFile(
        experiment="e", plan="p", seed=1, words=WORDS, settings={}, train_machine="here", infer_machine="here",
        measurement="", measurement_version=1, stages=stages, created="2026-01-01",
    )  # fmt: skip  # same


def stage(key: str, phase: Phase = Phase.BASE, kind: str = "TEC", **inputs: str) -> RunStage:
    return RunStage(phase=phase, kind=kind, key=key, fn="a:b", version=1, inputs=inputs, machine="here")


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with a run that reaches the record `k...`."""
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    store.add_run(run(stage("k" * 20)))
    return store


def _faults(store: Store) -> list[str]:
    return [finding.what for finding in check(store) if finding.fault]


def test_a_good_record_is_no_fault(store):
    store.add(record())
    assert check(store) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"joules": 0.0}, "nothing costs nothing"),
        ({"joules": -5.0}, "joules -5.0 is negative"),
        ({"seconds": 0.0}, "nothing costs nothing"),
        ({"joules": math.nan}, "NaN without a reason"),
        ({"joules": 3.6e6}, "above the limit"),
        (
            {"joules": 30_000.0, "provenance": {"versions": {"python": "3", "torch": "2"}, "power_limit_w": 700}},
            "above the limit of 700",
        ),
        ({"repeated_joules": -1.0}, "is negative"),
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


@pytest.mark.parametrize(
    ("source", "own", "others", "said"),
    [
        ("estimate:tdp_load", 1.5, 0.5, "took 25 % of the computer's CPU time"),
        ("rapl:package-0", 1.0, 3.0, "took 75 % of the computer's CPU time"),
        ("estimate:tdp_load", 1.9, 0.1, ""),  # a twentieth
        ("estimate:tdp_load", 1.9, None, ""),  # nobody knows
        ("nvml:counter", 1.0, 7.0, ""),  # a GPU's meter does not see it
        ("estimate:tdp_load", 1.0, "much", ""),  # what a stranger's record says
        ("estimate:tdp_load", -1.0, 3.0, ""),
        ("estimate:tdp_load", 1.0, 1.7e308, ""),
    ],
)
def test_other_work_beside_a_cpu_is_a_warning(store, source, own, others, said):
    store.add(record(source=source, reading={"own_cores": own, "others_cores": others}))
    found = check(store)
    assert not any(finding.fault for finding in found)
    assert [said in finding.what for finding in found] == ([True] if said else [])


def _short_beside(store, joules: float, machine: str = "here") -> list[str]:
    """Faults of a mask of 0.1 s beside a training of so many joules."""
    store.add_run(
        run(stage("k" * 20), stage("m" * 20, Phase.COMPRESS, trained="k" * 20)).model_copy(update={"seed": 2})
    )
    store.add(record(joules=joules, seconds=joules / 100))
    store.add(record(key="m" * 20, joules=10.0, seconds=0.1, grade="D"))
    return [what for what in _faults(store) if "too short for a meter" in what]


def test_a_stage_too_short_for_a_meter_is_a_fault_where_it_may_matter(store):
    assert "more than 1 % of TEC" in _short_beside(store, 3600.0)[0]


def test_a_stage_too_short_for_a_meter_is_none_where_it_cannot_matter(store):
    assert _short_beside(store, 1e6) == []


@pytest.mark.parametrize(("engine_pct", "faults"), [(71.5, 0), (71.42, 0), (71.3, 1), (5.8, 1)])
def test_an_fp32_engine_that_is_not_as_accurate_as_its_network_is_a_fault(store, engine_pct, faults):
    store.add_run(
        run(stage("k" * 20), stage("e" * 20, Phase.DEPLOY, "deploy", network="k" * 20)).model_copy(update={"seed": 2})
    )
    store.add(record(values={"acc_pct": 71.5}))
    store.add(record(key="e" * 20, values={"acc_pct": engine_pct}))
    assert len([what for what in _faults(store) if "not what was trained" in what]) == faults


def test_a_counter_that_did_not_move_in_a_moment_keeps_its_row(store):
    store.add_run(
        run(stage("k" * 20), stage("m" * 20, Phase.COMPRESS, trained="k" * 20)).model_copy(update={"seed": 2})
    )
    store.add(record(joules=1e6, seconds=1e4))
    store.add(record(key="m" * 20, joules=0.0, seconds=0.01, grade="D"))
    assert _faults(store) == []
    assert "m" * 20 in {row.key for row in stage_rows(Book.read(store))}


def test_a_record_that_no_run_reaches_is_a_warning(store):
    store.add(record(key="z" * 20))
    findings = check(store)
    assert not any(finding.fault for finding in findings)
    assert any("is reached by no run" in finding.what for finding in findings)


def test_a_file_that_is_no_run_is_a_fault(store):
    (path,) = store.run_paths()
    path.write_text("{}")
    assert any("is no run file" in what for what in _faults(store))


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


def test_estimates_under_different_assumptions_in_one_experiment_are_a_fault(store):
    store.add_run(run(stage("s" * 20)).model_copy(update={"seed": 2}))
    estimate = {"grade": "E", "joules": 1.0}
    store.add(record(source="estimate:tdp_load", **estimate))
    store.add(record(key="s" * 20, source="estimate:tdp_load@15w", **estimate))
    assert any("rest on different assumptions" in what for what in _faults(store))


def test_code_outside_our_commits_is_a_warning(store):
    store.add(record(provenance={"versions": {"python": "3", "torch": "2"}, "outside": {"mine": "0" * 64}}))
    (finding,) = check(store)
    assert not finding.fault
    assert "was made by mine, which lies in no commit of ours" in finding.what
