"""Records, artifacts and journals on disk."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from benchmark.plan.stage import EngineFile, Network, Output
from benchmark.records.files import StoreError
from benchmark.records.record import Record, read_record
from benchmark.records.store import Store
from benchmark.report.total import unfinished


def record(**values) -> Record:
    base = {
        "key": "k" * 20, "fn": "a:b", "fn_version": 1, "params": {}, "inputs": {}, "joules": 3600.0, "ci95_joules": 36.0,
        "repeated_joules": 0.0, "seconds": 36.0, "source": "nvml:counter", "grade": "A", "reason": "", "values": {},
        "details": {}, "reading": {}, "provenance": {"versions": {"python": "3", "torch": "2"}}, "device_name": "board",
        "machine": "here", "commit": "abc", "created": "2026-01-01T00:00:00", "attempts": 1,
    }  # fmt: skip  # one value a line would hide the shape
    return Record(**{**base, **values})


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results", tmp_path / "artifacts")


def test_a_record_comes_back_as_it_went(store):
    kept = store.add(record(values={"acc_pct": 71.5}))
    assert store.record("here", kept.key) == kept
    assert store.record("elsewhere", kept.key) is None
    assert list(store.records()) == [kept]


def test_nan_is_null_on_disk_and_nan_again(store):
    store.add(record(joules=math.nan, ci95_joules=math.nan, reason="device lost", values={"iec_joules": math.nan}))
    (path,) = store.record_paths()
    text = path.read_text()
    assert "NaN" not in text
    assert json.loads(text)["joules"] is None
    back = read_record(path)
    assert math.isnan(back.joules)
    assert math.isnan(back.values["iec_joules"])
    assert back.reason == "device lost"


def test_the_first_record_stays_and_a_second_is_kept_beside_it_as_a_repeat(store):
    first = store.add(record(joules=1.0))
    second = store.add(record(joules=2.0))
    assert (first.repeat, second.repeat) == (False, True)
    assert store.record("here", first.key).joules == 1.0
    assert sorted(r.joules for r in store.records()) == [1.0, 2.0]


def test_measurements_of_a_group_all_stay(store):
    for number in (1, 2):
        store.add(record(group=f"g{number}", created=f"2026-01-0{number}"))
    found = store.measurements("here", "k" * 20)
    assert [r.group for r in found] == ["g1", "g2"]
    assert not any(r.repeat for r in found)


def _add_many(folder: Path, start: int) -> None:
    own = Store(folder / "results", folder / "artifacts")
    for number in range(30):
        own.add(record(key=f"{number:020d}", joules=float(start + number)))


@pytest.mark.slow
def test_two_processes_on_one_folder_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(tmp_path, start)) for start in (0, 1000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    found = list(store.records())
    assert sorted(r.joules for r in found) == sorted(float(s + n) for s in (0, 1000) for n in range(30))
    assert sum(r.repeat for r in found) == 30
    leftovers = [path for path in tmp_path.rglob(".*") if path.is_file()]
    assert leftovers == []


def test_a_failed_write_leaves_no_half_file(store, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left"):
        store.add(record())
    assert [path for path in store.results.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*file.*paths.results="):
        Store(blocked / "results", tmp_path / "artifacts").check_writable()


def test_a_full_disk_is_refused_before_any_work(store, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 5_000_000))
    with pytest.raises(StoreError, match=r"only 5 MB are free"):
        store.check_writable()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "x"}'])
def test_a_damaged_record_is_named(store, content):
    path = store.results / "records" / "here" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StoreError, match=r"x\.json"):
        list(store.records())


NETWORK = Network("a:b", {"classes": 3}, {"w": torch.arange(6.0).reshape(2, 3)}, (0.1, 0.2, 0.3), (1, 1, 1))
ENGINE = EngineFile(
    "torch", {"w": torch.ones(2)}, {"builder": "a:b", "kwargs": {}}, {"precision": "fp32"}, "s", (0, 0, 0), (1, 1, 1)
)


def test_everything_of_an_output_survives_the_artifact(store):
    output = Output(NETWORK, {"mask": torch.tensor([True, False])}, ENGINE, {"acc_pct": 3.5}, {"genotype": ["a", 1]})
    stored = store.outputs.save("key", output)
    back, found = store.outputs.load("key", [stored.sha256])
    assert found == stored
    assert stored.size == store.outputs.path("key", stored.sha256).stat().st_size
    assert torch.equal(back.network.tensors["w"], NETWORK.tensors["w"])
    assert (back.network.builder, back.network.kwargs, back.network.mean) == ("a:b", {"classes": 3}, (0.1, 0.2, 0.3))
    assert torch.equal(back.arrays["mask"], output.arrays["mask"])
    assert torch.equal(back.engine.tensors["w"], ENGINE.tensors["w"])
    assert (back.engine.facts, back.engine.executes) == (ENGINE.facts, ENGINE.executes)
    assert (back.values, back.details) == (output.values, output.details)


def test_arrays_of_any_layout_are_kept(store):
    maps = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    stored = store.outputs.save("key", Output(arrays={"maps": maps}))
    assert torch.equal(store.outputs.load("key", [stored.sha256])[0].arrays["maps"], maps)


def test_an_output_of_numbers_alone_survives_too(store):
    stored = store.outputs.save("key", Output(values={"acc_pct": math.nan}, details={"genotype": [1]}))
    back, _ = store.outputs.load("key", [stored.sha256])
    assert math.isnan(back.values["acc_pct"])
    assert back.details == {"genotype": [1]}
    assert back.network is back.arrays is back.engine is None


def test_an_artifact_that_is_not_here_is_none(store):
    assert store.outputs.load("key", ["0"]) is None


def test_an_artifact_that_no_record_vouches_for_is_refused(store):
    stored = store.outputs.save("key", Output(arrays={"a": torch.zeros(100)}))
    (path,) = store.outputs.copies("key")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"key-\w+\.safetensors is not what any record"):
        store.outputs.load("key", [stored.sha256])


def _stored(store, content: bytes) -> str:
    """An artifact `key` with this content, under the name that is its own; returns its SHA-256."""
    sha256 = hashlib.sha256(content).hexdigest()
    store.artifacts.mkdir(parents=True, exist_ok=True)
    store.outputs.path("key", sha256).write_bytes(content)
    return sha256


@pytest.mark.parametrize("damage", [lambda content: content[:-50], lambda content: b"", lambda content: b"\0" * 100])
def test_a_damaged_artifact_is_named_even_if_its_record_vouches_for_it(store, damage):
    store.outputs.save("key", Output(arrays={"a": torch.zeros(100)}))
    (path,) = store.outputs.copies("key")
    sha256 = _stored(store, damage(path.read_bytes()))
    with pytest.raises(StoreError, match=r"safetensors is damaged.*delete it"):
        store.outputs.load("key", [sha256])


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"builder": 3, "kwargs": {}, "mean": [0, 0, 0], "std": [1, 1, 1]}},
        {"network": {"builder": "a:b", "kwargs": {}, "mean": [0, 0], "std": [1, 1, 1]}},
        {"more": 1},
        {"values": {"acc": "much"}},
    ],
)
def test_a_header_that_says_something_else_is_damage(store, change):
    from safetensors.torch import save

    header = {"network": None, "engine": None, "values": {}, "details": {}, **change}
    sha256 = _stored(store, save({"nothing": torch.zeros(0)}, {"output": json.dumps(header)}))
    with pytest.raises(StoreError, match="is damaged"):
        store.outputs.load("key", [sha256])


def test_two_copies_of_a_stage_never_meet(store):
    """Two machines, or two results folders, that share artifacts: each finds its own."""
    one = store.outputs.save("key", Output(values={"acc_pct": 1.0}))
    other = store.outputs.save("key", Output(values={"acc_pct": 2.0}))
    assert store.outputs.load("key", [one.sha256])[0].values == {"acc_pct": 1.0}
    assert store.outputs.load("key", [other.sha256])[0].values == {"acc_pct": 2.0}
    assert store.outputs.load("key", ["0" * 64]) is None
    assert len(store.outputs.copies("key")) == 2


def test_what_a_finished_stage_hands_on_is_never_refused_for_its_form(store):
    import numpy as np

    turned = torch.arange(6.0).reshape(2, 3).t()
    details = {"curve": [math.nan, np.float32(1.5), np.int64(2)], "where": (1, 2), "flag": np.bool_(True)}
    stored = store.outputs.save("key", Output(arrays={"a": turned}, values={"x": np.float64(2)}, details=details))
    back, _ = store.outputs.load("key", [stored.sha256])
    assert torch.equal(back.arrays["a"], turned)
    assert back.details == {"curve": [None, 1.5, 2], "where": [1, 2], "flag": True}
    with pytest.raises(TypeError, match="a object is no data"):
        store.outputs.save("key", Output(details={"x": object()}))


def test_the_copies_that_records_vouch_for_are_the_first_and_its_repeats(store):
    for sha in ("one", "two"):
        store.add(record(artifact=sha))
    store.add(record(key="m" * 20, group="g"))
    assert store.copies("here", "k" * 20) == ["one", "two"]
    assert store.copies("elsewhere", "k" * 20) == []
    assert store.copies("here", "m" * 20) == []


A, B, C = ("a" * 20, "b" * 20, "c" * 20)


def test_what_is_not_needed_is_listed_but_never_what_a_process_holds(store):
    for key in (A, B, C):
        store.outputs.save(key, Output(values={"x": 1.0}))
    checkpoint = store.outputs.checkpoint(C, "board")
    checkpoint.write_bytes(b"")
    with store.outputs.working_on(B, print):
        found = store.outputs.unneeded({A})
        assert set(found) == {*store.outputs.copies(C), checkpoint}
    assert set(store.outputs.unneeded({A})) == {*store.outputs.copies(B), *store.outputs.copies(C), checkpoint}


@pytest.mark.parametrize("name", ["thesis.docx", f".{C}-000000000000.safetensors.tmp1", "x.safetensors", f"{C}.lock"])
def test_files_that_are_somebody_elses_are_never_listed(store, name):
    store.artifacts.mkdir(parents=True)
    (store.artifacts / name).write_text("mine")
    (store.artifacts / "a.folder").mkdir()
    assert store.outputs.unneeded(set()) == []


def test_a_folder_of_artifacts_knows_who_uses_it(store, tmp_path):
    other = Store(tmp_path / "elsewhere", store.artifacts)
    for each in (store, other, store):
        each.check_writable()
    assert {path.name for path in store.outputs.users()} == {"results", "elsewhere"}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_is_refused(store, word):
    store.add(record())
    (path,) = store.record_paths()
    path.write_text(path.read_text().replace('"seconds": 36.0', f'"seconds": {word}'))
    with pytest.raises(StoreError, match="is no JSON"):
        read_record(path)


def test_a_choice_is_made_once_a_machine(store):
    assert store.choice("here", "layout of x") is None
    store.add_choice("here", "layout of x", "contiguous")
    store.add_choice("here", "layout of x", "channels_last")
    assert store.choice("here", "layout of x") == "contiguous"
    assert store.choice("there", "layout of x") is None


def test_attempts_are_listed_and_cleared_by_stage(store):
    for key in ("a", "b"):
        store.write_attempt("here", key, {"id": "1", "joules": 1.0})
        store.write_attempt("here", key, {"id": "1", "joules": 2.0})
        store.write_attempt("here", key, {"id": "2", "joules": 3.0})
    assert [json.loads(path.read_text())["joules"] for path in store.attempt_paths("here", "a")] == [2.0, 3.0]
    store.clear_attempts("here", "a", {"2"})
    assert [path.stem for path in store.attempt_paths("here", "a")] == ["a-1"]
    store.clear_attempts("here", "a")
    assert store.attempt_paths("here", "a") == []
    assert len(store.attempt_paths("here", "b")) == 2


def test_what_unfinished_stages_spent_is_told(store):
    assert list(unfinished(store, set())) == []
    blank = {"key": "k", "max_w": None, "seconds": 1.0, "longest_gap_s": 1.0, "at": "now", "closed": False}
    blank["source"] = "nvml:counter"
    store.write_attempt("here", "k", {**blank, "id": "1", "joules": 3600.0})
    store.write_attempt("there", "k", {**blank, "id": "2", "joules": 1800.0})
    assert list(unfinished(store, set())) == [
        "in no row yet: 2 attempt(s) at stages that have not ended spent 1.5 W.h or more"
    ]
    assert "1 attempt(s) at stages that have not ended spent 0.5 W.h" in next(unfinished(store, {"1"}))
    store.write_attempt("there", "k", {**blank, "id": "3", "joules": None, "source": "estimate:tdp_load"})
    store.write_attempt("there", "k", {**blank, "id": "4", "joules": 3600.0, "source": "estimate:tdp_load"})
    (store.results / "attempts" / "here" / "k-5.json").write_text("broken")
    (line,) = unfinished(store, set())
    assert "5 attempt(s)" in line
    assert "spent ~2.5 W.h or more (2 of them an unknown amount)" in line
    store.write_attempt("there", "k", {**blank, "id": "6", "joules": 1.7e308})
    store.write_attempt("there", "k", {**blank, "id": "7", "joules": -7200.0})
    assert "spent ~2.5 W.h or more (4 of them" in next(unfinished(store, set())), "nobody can have spent that"
    assert next(unfinished(store, {"1", "2", "3", "4", "6", "7"})).startswith("in no row yet: 1 attempt(s)")


def test_a_folder_of_attempts_that_is_none_costs_one_line(store):
    store.results.mkdir(parents=True, exist_ok=True)
    (store.results / "attempts").write_text("a file")
    (line,) = unfinished(store, set())
    assert "is unknown: cannot look into" in line


def test_a_journal_of_before_meters_were_named_may_be_an_estimates(store):
    blank = {"key": "k", "max_w": None, "seconds": 1.0, "longest_gap_s": 1.0, "at": "now", "closed": False}
    store.write_attempt("here", "k", {**blank, "id": "1", "joules": 3600.0})
    assert "spent ~1 W.h" in next(unfinished(store, set()))


def test_a_wheel_names_the_commit_it_was_built_from(monkeypatch, tmp_path):
    from benchmark.records import provenance

    (tmp_path / "benchmark" / "records").mkdir(parents=True)
    (tmp_path / "benchmark" / "built_from.txt").write_text("abc+dirty\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "benchmark" / "records" / "provenance.py"))
    assert provenance.commit() == "abc+dirty"
    (tmp_path / "benchmark" / "built_from.txt").unlink()
    assert provenance.commit() == "unknown"
