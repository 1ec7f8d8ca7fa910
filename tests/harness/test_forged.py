"""Forged and strange files: sealed by a fitting digest, or in odd places. No command crashes on them, none is misled, and
none of their words reaches a terminal as a command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.__main__ import main
from benchmark.records.artifacts import Artifacts
from benchmark.records.book import Book
from benchmark.records.files import DAY_S, StoreError, Unreadable, read_json
from benchmark.records.record import digest, sound_record
from benchmark.records.store import Store
from benchmark.report.checks import check
from benchmark.run.free import removable
from tests.harness.helpers import lives_of, tiny_experiment
from tests.harness.test_runner import Lab, summary_of
from tests.harness.test_store import record
from tests.harness.test_strangers import WORDS, copied, folders, sound  # noqa: F401 - fixtures

COMMANDS = ("report", "check", "free", "plan")
TRAIN, BUILD, MEASURE = "methods.training:train", "build:build_engine", "measure"


@pytest.fixture(scope="module")
def worked(tmp_path_factory) -> Path:
    """The folder of one tiny life, worked once for all tests here."""
    root = tmp_path_factory.mktemp("worked")
    Lab(root).run(tiny_experiment(root))
    return root


@pytest.fixture
def lab(worked, tmp_path) -> Lab:
    shutil.copytree(worked, tmp_path / "lab")
    shutil.rmtree(tmp_path / "lab" / "artifacts" / "used_by")
    own = Lab(tmp_path / "lab")
    own.store.outputs.register(own.store.results)
    return own


def path_of(lab: Lab, fn: str) -> Path:
    return next(path for path in lab.store.record_paths() if fn in json.loads(path.read_text())["fn"])


def forge(path: Path, **changes) -> None:
    """Change a record and seal it anew, as somebody would who knows how."""
    content = {**json.loads(path.read_text()), **changes}
    with contextlib.suppress(ValueError):  # a number that no digest can be made of
        content |= {"digest": digest(content)} if "digest" in content else {}
    path.write_text(json.dumps(content))


def commands(root: Path, capsys, names=COMMANDS) -> str:
    """What the commands say of a folder; none may end in a traceback or send a control character."""
    said = ""
    for name in names:
        # drawing takes seconds; tests/report draws rows that cannot be
        words = {"plan": WORDS, "report": ("--no-figures",)}.get(name, ())
        assert main([name, *words, *folders(root)]) in (0, 1), name
        out, err = capsys.readouterr()
        said += out + err
    odd = {letter for letter in said if not letter.isprintable() and letter != "\n"}
    assert not odd, said
    return said


@pytest.mark.parametrize(
    "changes",
    [
        {"joules": 10**400},
        {"details": {"spent": {"joules": 10**400}}},
        {"values": {"acc_pct": 50.0, "params": 1e300}},
        {"seconds": 1e300},
        {"joules": -1.0},
        {"grade": ""},
        {"grade": "AB"},
        {"grade": "Q"},
        {"artifact_bytes": 10**300},
        {"provenance": {"versions": ["torch"]}},
        {"provenance": {"versions": {"torch": ["2"]}}},
        {"provenance": {"attempt_ids": 7}},
        {"provenance": {"threads": "many"}},
        {"provenance": {"environment": [1]}},
        {"provenance": {"device_uuid": ["x"]}},
        {"provenance": {"outside": 3}},
        {"provenance": {"power_limit_w": -1.0}},
        {"details": {"half": "\ud800"}},
    ],
)
def test_a_forged_record_is_left_out_and_named(lab, changes):
    path = path_of(lab, TRAIN)
    forge(path, **changes)
    (row,) = summary_of(lab).to_dict("records")
    assert row["n_seeds"] == 0
    assert any(path.name in line for line in Book.read(lab.store).unreadable)
    assert any(finding.fault and path.name in finding.where for finding in check(lab.store))


def test_a_number_like_1e400_is_no_number(tmp_path):
    for word in ("1e400", "-1e400", "9" * 400):
        (tmp_path / "a.json").write_text(f'{{"joules": {word}}}')
        with pytest.raises(Unreadable, match="too large a number"):
            read_json(tmp_path / "a.json")


def test_a_variable_that_is_no_text_leaves_a_record_that_can_be_read(tmp_path):
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    store.add(record(provenance={"environment": {"OMP_X": "a\udc80"}}))
    (kept,) = store.records()
    assert kept.provenance["environment"] == {"OMP_X": "a?"}


@pytest.mark.parametrize("text", ['{"a":' * 300 + "1" + "}" * 300, "[" * 100_000])
def test_json_nested_without_end_is_unreadable(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Unreadable, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"__metadata__": {"output": "' + b"[" * 200_000 + b'"}}'])
def test_an_artifact_with_a_header_without_end_is_damaged(tmp_path, header):
    for size in (len(header), 2**63):
        content = size.to_bytes(8, "little") + header
        artifacts, sha256 = Artifacts(tmp_path), hashlib.sha256(content).hexdigest()
        artifacts.path("k" * 20, sha256).write_bytes(content)
        with pytest.raises(StoreError, match="is damaged"):
            artifacts.load("k" * 20, [sha256])


def test_details_of_wrong_shapes_stop_no_command(lab, capsys):
    forge(path_of(lab, TRAIN), details={"history": [1], "execution": {"autocast": 3}, "spent": [2]})
    forge(path_of(lab, BUILD), details={"signature": "s", "executes": ["x"], "sizes": 1})
    forge(path_of(lab, MEASURE), details={"engine_key": {}, "measured_before": {}, "measurement": []})
    assert "records under" in commands(lab.root, capsys)


def test_no_energy_at_all_gives_no_greeness(lab, capsys):
    for path in lab.store.record_paths():
        values = json.loads(path.read_text())["values"]
        forge(path, joules=0.0, values={**values, **{name: 0.0 for name in values if name.endswith("_joules")}})
    (row,) = summary_of(lab).to_dict("records")
    assert row["n_seeds"] == 1
    assert row["g_1b"] != row["g_1b"], "nothing can be divided by nothing"


ODD = "\x1b[2J\u202e\n=cmd|'x'!A1\x07"


def test_no_word_of_a_file_commands_a_terminal_or_a_spreadsheet(lab, capsys):
    names = {"source": ODD, "reason": ODD, "device_name": ODD, "commit": ODD, "created": ODD}
    for path in lab.store.record_paths():
        details = json.loads(path.read_text())["details"]
        executes = {"executes": {"precision": ODD, "layout": ODD}, "execution": {"autocast": ODD}}
        forge(path, **names, details={**details, **executes})
    (run,) = lab.store.run_paths()
    content = json.loads(run.read_text())
    content["words"] |= dict.fromkeys(("method", "model", "teacher", "recipe", "engine"), ODD)
    run.write_text(json.dumps(content))
    place = lab.store.results / "records" / "\x1b[2Jhere" / "\u202ea.json"
    place.parent.mkdir()
    place.write_text("{}")
    said = commands(lab.root, capsys)
    assert "?[2J" in said
    assert "\n=cmd" not in (lab.store.results / "stages.csv").read_text()
    assert ",=cmd" not in (lab.store.results / "stages.csv").read_text()


def test_a_run_takes_nothing_for_recorded_that_no_table_would_take(lab):
    path = path_of(lab, TRAIN)
    whole = path.read_bytes()
    for damage in ({"grade": "Z"}, {"fn": "a:b"}, {"joules": -1.0}):
        forge(path, **damage)
        with pytest.raises(Exception, match=f"{path.name}.*remove it to measure again"):
            lab.run(tiny_experiment(lab.root))
        assert not any("train" in line and "recorded" in line for line in lab.said)
        path.write_bytes(whole)
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    with pytest.raises(Exception, match="was edited by hand"):
        lab.run(tiny_experiment(lab.root))


def _removed(stages):
    return stages[1:]


def _twice(stages):
    return [stages[0], *stages]


def _moved(stages):
    return [{**stages[0], "phase": "compress"}, *stages[1:]]


@pytest.mark.parametrize("change", [_removed, _twice, _moved])
def test_a_run_file_whose_stages_are_not_its_plans_gives_no_row(lab, change):
    (path,) = lab.store.run_paths()
    content = json.loads(path.read_text())
    content["stages"] = change(content["stages"])
    path.write_text(json.dumps(content))
    assert not len(summary_of(lab))
    assert any(finding.fault and path.name in finding.what for finding in check(lab.store))


def test_another_seed_of_a_plan_has_the_stages_of_seed_0(lab):
    (life,) = lives_of(tiny_experiment(lab.root, seed=1), lab.device, lab.store)
    run = life.run_file("2026-01-01")
    lab.store.add_run(run)
    path = next(path for path in lab.store.run_paths() if path.name.endswith("-s1.json"))
    assert len(Book.read(lab.store).runs) == 2
    content = json.loads(path.read_text())
    content["stages"] = _moved(content["stages"])
    path.write_text(json.dumps(content))
    book = Book.read(lab.store)
    assert [run.seed for run in book.runs] == [0]
    assert "other stages than seed 0" in book.unreadable[0]


def test_a_copied_run_is_no_second_life(lab):
    (path,) = lab.store.run_paths()
    shutil.copy(path, path.with_name("copy.json"))
    book = Book.read(lab.store)
    assert len(book.runs) == 1
    assert "copy.json" in book.unreadable[0]


def test_a_copied_repeat_counts_once(lab):
    path = path_of(lab, TRAIN)
    first = lab.store.record(path.parent.name, path.stem)
    alone = Book.read(lab.store).repeated_joules(first)
    repeat = path.with_name(f"{path.stem}.aaaaaaaa.json")
    shutil.copy(path, repeat)
    forge(repeat, repeat=True, joules=5.0, provenance={**first.provenance, "attempt_ids": ["other"]})
    once = Book.read(lab.store).repeated_joules(first)
    assert once == alone + 5.0 + first.repeated_joules
    again = path.with_name(f"{path.stem}.bbbbbbbb.json")
    shutil.copy(repeat, again)
    assert Book.read(lab.store).repeated_joules(first) == once
    forge(again, created="2027-01-01")  # the same attempt under another seal
    assert Book.read(lab.store).repeated_joules(first) == once
    assert any(finding.fault and again.name in finding.what for finding in check(lab.store))


def test_a_record_in_anothers_place_is_in_no_table(lab):
    path = path_of(lab, TRAIN)
    elsewhere = path.parents[1] / "other-machine" / path.name
    elsewhere.parent.mkdir()
    for place in (elsewhere, path.with_name("0" * 20 + ".json"), path.with_name(f"{path.stem}.cccccccc.json")):
        shutil.copy(path, place)
        book = Book.read(lab.store)
        assert len(book.unreadable) == 1, place
        assert str(place) in book.unreadable[0]
        assert any(finding.fault for finding in check(lab.store) if place.name in finding.where)
        place.unlink()


@pytest.mark.parametrize("name", ["records", "runs"])
def test_a_folder_that_may_not_be_looked_into_is_one_line(lab, capsys, monkeypatch, name):
    whole = Path.iterdir

    def refuse(path):
        if path.parent.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    for command in ("report", "check", "free"):
        assert main([command, *folders(lab.root)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot look into" in line
        assert "Permission denied" in line


def test_free_sweeps_what_killed_writers_left(lab, capsys):
    left = lab.store.artifacts / ".abc.safetensors.k3jx_9ab"
    left.write_text("x")
    os.utime(left, (0, left.stat().st_mtime - 2 * DAY_S))
    assert main(["free", "--dry-run", *folders(lab.root)]) == 0
    assert left.exists()
    assert main(["free", *folders(lab.root)]) == 0
    assert not left.exists()


def test_free_refuses_while_a_user_of_the_artifacts_is_absent(lab, tmp_path, capsys):
    other = Store(tmp_path / "other", lab.store.artifacts)
    other.results.mkdir()
    lab.store.outputs.register(other.results)
    assert removable(lab.store)
    other.results.rmdir()
    with pytest.raises(Unreadable, match="is not there"):
        removable(lab.store)
    assert main(["free", *folders(lab.root)]) == 1
    assert f"--without={other.results}" in capsys.readouterr().err
    assert main(["free", f"--without={other.results}", *folders(lab.root)]) == 0


@pytest.mark.parametrize("words", ["", ".", "/else/where", "\x00"])
def test_free_refuses_a_note_that_is_damaged(lab, words):
    (note,) = (lab.store.artifacts / "used_by").iterdir()
    note.write_text(words)
    with pytest.raises(Unreadable, match=f"is damaged.*--without={note.name}"):
        removable(lab.store)
    assert removable(lab.store, [note.name])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_forged_record_crashes_or_fools_a_command(sound, tmp_path_factory, capsys, data):  # noqa: F811 - a fixture
    root = tmp_path_factory.mktemp("fuzzed") / "copy"
    shutil.copytree(sound, root)
    store = Store(root / "results", root / "artifacts")
    path = data.draw(st.sampled_from([*store.record_paths(), *store.run_paths()]))
    content = json.loads(path.read_text())
    name = data.draw(st.sampled_from(sorted(set(content) - {"digest"})))
    inner = content[name]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        forge(path, **{name: {**inner, data.draw(st.sampled_from(sorted(inner))): data.draw(ANY)}})
    else:
        forge(path, **{name: data.draw(ANY)})
    said = commands(root, capsys)
    shutil.rmtree(root.parent)
    assert "Traceback" not in said


# --- what was judged before ------------------------------------------------------------------------------------------


def test_a_large_folder_is_judged_once_and_what_is_touched_again(lab, monkeypatch):
    lab.run(tiny_experiment(lab.root))
    monkeypatch.setattr("benchmark.records.proven.MANY", 1)
    monkeypatch.setattr("benchmark.records.proven.MOST_WORKERS", 1)  # what others judge, this test would not see
    judged: list[Path] = []

    def judging(path):
        judged.append(path)
        return sound_record(path)

    monkeypatch.setattr("benchmark.records.proven.sound_record", judging)
    first = Book.read(lab.store)
    assert sorted(judged) == sorted(lab.store.record_paths())
    judged.clear()
    again = Book.read(lab.store)
    assert judged == []
    assert (again.firsts, again.measured) == (first.firsts, first.measured)
    path = next(each for each in lab.store.record_paths() if "methods.training:train" in each.read_text())
    times = path.stat()
    content = path.read_text()
    path.write_text(content.replace('"attempts": 1', '"attempts": 2'))  # of the same size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    touched = Book.read(lab.store)
    assert judged == [path]
    assert any("was edited by hand" in line for line in touched.unreadable)
    judged.clear()
    assert any("was edited by hand" in line for line in Book.read(lab.store).unreadable)
    assert judged == [path], "what is not sound is judged each time"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"judge": 1}', b'{"judge": "x", "files": {}}', b"\xff"])
def test_a_damaged_memory_of_judgements_is_none(lab, monkeypatch, content):
    lab.run(tiny_experiment(lab.root))
    monkeypatch.setattr("benchmark.records.proven.MANY", 1)
    (lab.store.artifacts / ".proven.json").write_bytes(content)
    assert len(Book.read(lab.store).firsts) == 2
