"""Records, artifacts and journals on disk."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from benchmark.plan.stage import Network, Output
from benchmark.records.store import Record, Store, StoreError, read_record


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


def test_an_output_survives_the_artifact(store):
    network = Network("a:b", {"classes": 3}, {"w": torch.arange(6.0).reshape(2, 3)}, (0.1, 0.2, 0.3), (1, 1, 1))
    output = Output(network, {"mask": torch.tensor([True, False])}, {"acc_pct": 3.5}, {"genotype": ["a", 1]})
    assert not store.has_output("key")
    store.save_output("key", output)
    assert store.has_output("key")
    back = store.load_output("key")
    assert torch.equal(back.network.tensors["w"], network.tensors["w"])
    assert (back.network.builder, back.network.kwargs, back.network.mean) == ("a:b", {"classes": 3}, (0.1, 0.2, 0.3))
    assert torch.equal(back.arrays["mask"], output.arrays["mask"])
    assert (back.values, back.details) == (output.values, output.details)


def test_a_damaged_artifact_is_named(store):
    store.save_output("key", Output(arrays={"a": torch.zeros(100)}))
    path = store.artifacts / "key.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StoreError, match=r"key\.safetensors is damaged.*delete it"):
        store.load_output("key")


def test_attempts_are_listed_and_cleared_by_stage(store):
    for key in ("a", "b"):
        store.write_attempt("here", key, {"id": "1", "joules": 1.0})
        store.write_attempt("here", key, {"id": "1", "joules": 2.0})
        store.write_attempt("here", key, {"id": "2", "joules": 3.0})
    assert [a["joules"] for a in store.attempts("here", "a")] == [2.0, 3.0]
    store.clear_attempts("here", "a")
    assert store.attempts("here", "a") == []
    assert len(store.attempts("here", "b")) == 2
