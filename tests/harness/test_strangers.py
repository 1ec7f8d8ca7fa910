"""A stranger's results folder, or one's own after an accident: nothing in it is a traceback, a wait, or a number that
nobody measured, and what is sound in it is still shown."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.records import files
from benchmark.records.book import Book
from benchmark.records.files import StoreError, Unreadable, create, sweep
from benchmark.records.store import Store
from benchmark.report.checks import check
from tests.harness.helpers import tiny_experiment
from tests.harness.test_runner import Lab, summary_of

PROBE = {"id": "a1", "device": {"uuid": "GPU-1", "driver": "9"}, "counter_tick_ms": 20.0, "created": "1"}
WORDS = ("data=synthetic", "scale=smoke", "model=repdistiller/resnet8", "hardware=cpu")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A results folder with a whole life, a probe, a choice and the journal of a broken attempt."""
    root = tmp_path_factory.mktemp("sound")
    assert main(["run", *WORDS, *folders(root)]) == 0
    store = Store(root / "results", root / "artifacts")
    (machine,) = {path.parent.name for path in store.record_paths()}
    store.add_device(machine, PROBE)
    store.add_choice(machine, "layout", "contiguous")
    key = store.record_paths()[0].name[:20]
    store.write_attempt(
        machine, key, {"id": "x", "key": key, "joules": 1.0, "max_w": 1.0, "seconds": 1.0, "closed": True}
    )
    return root


def folders(root: Path) -> list[str]:
    return [f"paths.{name}={root / name}" for name in ("results", "artifacts", "data")]


@pytest.fixture
def copied(sound, tmp_path) -> Path:
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


@contextlib.contextmanager
def no_hang(seconds: int = 30):
    def ring(number, frame):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NO_FIGURES = ("--no-figures",)
"""Drawing takes seconds; tests/report draws rows that cannot be."""

KINDS = ("records/*/*.json", "runs/*/*.json", "devices/*/*.json", "devices/*/choices/*.json", "attempts/*/*.json")
VALUES = (
    None,
    "",
    "Z",
    "[bold]",
    "[/x]",
    "\x1b[2J",
    "=1+1",
    -1,
    1e300,
    10**30,
    float("nan"),
    True,
    [],
    {},
    [[]],
    "ä" * 9,
)


def damages(draw: random.Random, content: dict):
    """Kinds of damage: by name, the bytes of a damaged file, or a call that puts something else in its place."""
    names = [name for name in content if name != "digest"]
    name = draw.choice(names)
    yield "field removed", json.dumps({key: value for key, value in content.items() if key != name}).encode()
    for value in draw.sample(VALUES, 6):
        changed = copy.deepcopy(content)
        node = changed
        inner = draw.choice(names)
        if isinstance(node[inner], dict) and node[inner] and draw.random() < 0.6:
            node = node[inner]
            inner = draw.choice(list(node))
        node[inner] = value
        yield f"{inner}={value!r}"[:60], json.dumps(changed).encode()
    yield "version 2", json.dumps({**content, "version": 2, "format": 2, "newer": 1}).encode()
    yield "truncated", json.dumps(content).encode()[: draw.randrange(40)]
    yield "empty", b""
    yield "binary", draw.randbytes(200)
    yield "a list", b"[]"
    yield "an empty object", b"{}"
    yield "deep", b"[" * 100_000
    yield "a pipe", os.mkfifo
    yield "a folder", os.mkdir
    yield "a loop", lambda path: os.symlink(path, path)


def put(path: Path, damage) -> None:
    path.unlink()
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        damage(path)


def clear(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_is_a_traceback_or_a_wait(copied, kind, capsys):
    """Every command that reads what is kept, over every kind of file with every kind of damage."""
    draw, seen = random.Random(kind), 0
    for path in sorted((copied / "results").glob(kind)):
        whole = path.read_bytes()
        for name, damage in damages(draw, json.loads(whole)):
            put(path, damage)
            for command in ("report", "check", "free", "plan"):
                words = {"plan": WORDS, "report": NO_FIGURES}.get(command, ())
                capsys.readouterr()
                with no_hang():
                    status = main([command, *words, *folders(copied)])
                said = capsys.readouterr()
                assert status in (0, 1), (path, name, command)
                assert "Traceback" not in said.err, (path, name, command)
                assert "\x1b" not in said.out + said.err, (path, name, command)
                seen += 1
            clear(path)
            path.write_bytes(whole)
    assert seen > 50


@pytest.mark.parametrize("damage", [b"", b"{}", os.mkfifo, b'{"version": 2}'])
def test_one_bad_file_leaves_the_other_rows_standing(tmp_path, damage):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root), tiny_experiment(lab.root, seed=1))
    victim = next(path for path in lab.store.record_paths() if "train" in path.read_text())
    put(victim, damage)
    with no_hang():
        summary = summary_of(lab)
    (row,) = summary.to_dict("records")
    assert row["n_seeds"] == 1
    assert any(victim.name in finding.where for finding in check(lab.store))


def test_a_damaged_record_stops_its_own_life_and_no_other(tmp_path):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root))
    victim = next(path for path in lab.store.record_paths() if "methods.training:train" in path.read_text())
    victim.write_bytes(b"{}")
    with pytest.raises(Exception, match=victim.name), no_hang():
        lab.run(tiny_experiment(lab.root), tiny_experiment(lab.root, seed=1))
    assert summary_of(lab)["n_seeds"].max() == 1


def test_a_number_that_was_typed_in_is_in_no_table(tmp_path, capsys):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root))
    victim = next(path for path in lab.store.record_paths() if "methods.training:train" in path.read_text())
    content = json.loads(victim.read_text())
    victim.write_text(json.dumps({**content, "joules": 0.001}))
    (row,) = summary_of(lab).to_dict("records")
    assert row["n_seeds"] == 0
    assert "train" in row["missing"]
    assert any("was edited by hand" in line for line in Book.read(lab.store).unreadable)


@pytest.mark.parametrize("command", ["report", "check", "free"])
def test_a_folder_that_is_not_there_is_an_error(command, capsys, tmp_path):
    assert main([command, *folders(tmp_path)]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_check_of_nothing_is_no_success(capsys, tmp_path):
    (tmp_path / "results").mkdir()
    assert main(["check", *folders(tmp_path)]) == 1
    assert "there is no record under" in capsys.readouterr().err


def test_a_record_that_was_removed_under_its_run_is_a_fault(tmp_path):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root))
    assert not any(finding.fault for finding in check(lab.store))
    victim = next(path for path in lab.store.record_paths() if "methods.training:train" in path.read_text())
    victim.unlink()
    faults = [finding.what for finding in check(lab.store) if finding.fault]
    assert any(f"the record of train {victim.stem}" in what and "build_engine rests on it" in what for what in faults)


def test_the_clock_set_back_does_not_make_the_older_measurement_count(tmp_path, monkeypatch):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root))
    first = Book.read(lab.store)
    monkeypatch.setattr("benchmark.run.worker.now", lambda: "2001-01-01T00:00:00.000+00:00")
    lab.run(tiny_experiment(lab.root), measure_again=True)
    second = Book.read(lab.store)
    old, new = (book.inference(book.runs[0]) for book in (first, second))
    assert new.created == "2001-01-01T00:00:00.000+00:00"
    assert old.created != new.created


def test_names_reach_a_spreadsheet_and_a_terminal_as_text(tmp_path, capsys):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root, model={"name": "=cmd|'/c calc'!A1", "builder": "tests.tiny:tiny"}))
    (run,) = lab.store.run_paths()
    content = json.loads(run.read_text())
    content["words"]["method"] = "\x1b[31mred"
    run.write_text(json.dumps(content))
    assert main(["report", *NO_FIGURES, *folders(lab.root)]) == 0
    table = (lab.store.results / "summary.csv").read_text()
    assert "\x1b" not in table + capsys.readouterr().out
    assert "'=cmd" in table


def test_a_folder_that_cannot_be_written_can_still_be_reported_on(tmp_path, capsys, monkeypatch):
    lab = Lab(tmp_path)
    lab.run(tiny_experiment(lab.root))

    def refuse(path, content, durable=True):
        raise StoreError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr("benchmark.report.tables.replace", refuse)
    assert main(["report", *NO_FIGURES, *folders(lab.root)]) == 0
    said = capsys.readouterr()
    assert "tiny" in said.out
    assert "this table is printed, and not written" in said.err


@pytest.mark.parametrize("code", [1, 95, 38, 31])
def test_a_folder_without_hard_links_still_keeps_each_record_once(tmp_path, monkeypatch, code):
    def refuse(one, other):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    assert create(tmp_path / "record.json", b"first") is True
    assert create(tmp_path / "record.json", b"second") is False
    assert (tmp_path / "record.json").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path):
    for name in (
        ".abc.json.k3jx_9ab",
        ".abc.csv.gz.00000000",
        ".gitignore",
        ".notes.json",
        "abc.json",
        ".abc.json.UPPER123",
    ):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, time.time() - 2 * files.DAY_S))
    (tmp_path / ".new.json.k3jx_9ab").write_text("x")
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".gitignore", ".notes.json", "abc.json", ".abc.json.UPPER123", ".new.json.k3jx_9ab"}


def test_a_probe_that_cannot_be_true_is_not_used_and_named(tmp_path):
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    store.add_device("here", PROBE)
    assert store.device("GPU-1", "9")["id"] == "a1"
    (path,) = store.device_paths()
    for bad in ({}, {**PROBE, "counter_tick_ms": "soon"}, {**PROBE, "power_fields": {"power.instant": 1}}):
        path.write_text(json.dumps(bad))
        assert store.device("GPU-1", "9") is None
        assert any("is no probe of a device" in finding.what for finding in check(store))


@pytest.mark.parametrize("content", ['{"chosen": null}', "{}", '{"chosen": ["x"]}'])
def test_a_choice_that_names_none_is_refused(tmp_path, content):
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    store.add_choice("here", "layout", "contiguous")
    (path,) = (tmp_path / "results").rglob("choices/*.json")
    path.write_text(content)
    with pytest.raises(Unreadable, match="names no choice"):
        store.choice("here", "layout")


def test_a_checkout_of_another_user_is_told_before_the_work(tmp_path, monkeypatch):
    lab = Lab(tmp_path)
    monkeypatch.setattr("benchmark.records.provenance.commit", lambda: "unknown")
    monkeypatch.setattr("benchmark.run.worker.why_unknown", lambda: "git config --global --add safe.directory X")
    lab.run(tiny_experiment(lab.root))
    assert "its commit is unknown: git config --global --add safe.directory X" in lab.said[0]
