"""What was judged sound and not touched since is not judged again; many files are judged on all cores."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from benchmark.records import proven as kept
from benchmark.records.book import Book
from benchmark.records.proven import NAME, Proven
from benchmark.records.record import sound_record
from benchmark.records.store import Store
from tests.harness.helpers import tiny_experiment
from tests.harness.test_runner import Lab


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    root = tmp_path_factory.mktemp("worked")
    Lab(root).run(tiny_experiment(root))
    return root


@pytest.fixture
def store(worked, tmp_path, monkeypatch):
    """A copy of that folder, in which even a few records are many."""
    monkeypatch.setattr(kept, "MANY", 2)
    monkeypatch.setattr(kept, "MOST_WORKERS", 1)
    shutil.copytree(worked, tmp_path / "lab")
    return Store(tmp_path / "lab" / "results", tmp_path / "lab" / "artifacts")


def _judged(monkeypatch, store) -> tuple[int, Book]:
    """How many files a reading judges, and the book it gives."""
    judged = []

    def judge(path):
        judged.append(path)
        return sound_record(path)

    with monkeypatch.context() as patch:
        patch.setattr(kept, "sound_record", judge)
        book = Book.read(store)
    return len(judged), book


def test_what_was_judged_is_not_judged_again_and_reads_the_same(store, monkeypatch):
    count = len(store.record_paths())
    first, one = _judged(monkeypatch, store)
    second, other = _judged(monkeypatch, store)
    assert (first, second) == (count, 0)
    assert one.firsts.keys() == other.firsts.keys()
    texts = [[record.model_dump_json() for record in book.records()] for book in (one, other)]
    assert texts[0] == texts[1]


def test_a_file_that_was_touched_is_judged_and_an_edited_one_left_out(store, monkeypatch):
    _judged(monkeypatch, store)
    touched, edited = store.record_paths()[:2]
    os.utime(touched, ns=(1, 1))
    words = json.loads(edited.read_text())
    edited.write_text(json.dumps({**words, "joules": 1.0}))
    count, book = _judged(monkeypatch, store)
    assert count == 2
    assert [path for path, _ in book.left_out] == [edited]


def test_who_sets_the_time_back_hides_nothing(store, monkeypatch):
    _judged(monkeypatch, store)
    edited = store.record_paths()[0]
    before, text = edited.stat(), edited.read_text()
    with edited.open("r+") as file:  # as long as it was, in the same inode
        file.write(text.replace('"seed":0', '"seed":1').replace('"seed": 0', '"seed": 1'))
    assert edited.read_text() != text
    os.utime(edited, ns=(before.st_atime_ns, before.st_mtime_ns))
    count, book = _judged(monkeypatch, store)
    assert count == 1
    assert [path for path, _ in book.left_out] == [edited]


def test_another_judgement_judges_all(store, monkeypatch):
    _judged(monkeypatch, store)
    monkeypatch.setattr(kept, "_judge", lambda: "another")
    assert _judged(monkeypatch, store)[0] == len(store.record_paths())


@pytest.mark.slow
def test_many_are_judged_on_all_cores_and_what_is_not_sound_is_named_by_its_reader(store, monkeypatch):
    paths = store.record_paths()
    words = json.loads(paths[0].read_text())
    paths[0].write_text(json.dumps({**words, "seconds": 1e9}))
    monkeypatch.setattr(kept, "FEWEST_WORKERS", 2)
    monkeypatch.setattr(kept, "MOST_WORKERS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    count, book = _judged(monkeypatch, store)
    assert count == 1, "the rest was judged by the workers"
    assert [path for path, _ in book.left_out] == [paths[0]]


def test_workers_that_cannot_begin_cost_time_alone(store, monkeypatch):
    def broken(*_):
        raise OSError("no more processes")

    monkeypatch.setattr(kept, "FEWEST_WORKERS", 2)
    monkeypatch.setattr(kept, "MOST_WORKERS", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(kept, "ProcessPoolExecutor", broken)
    count, book = _judged(monkeypatch, store)
    assert count == len(store.record_paths())
    assert book.left_out == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"judge": 1, "files": []}', '{"judge": null}'])
def test_a_damaged_memory_is_none(store, content):
    (store.artifacts / NAME).write_text(content)
    assert Proven(store.artifacts / NAME).record(store.record_paths()[0]).key
