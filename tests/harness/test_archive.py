"""Results that travel: what is exported is imported whole, twice is once, and nothing hostile gets in."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest

from benchmark.__main__ import main
from benchmark.plan.stage import Phase
from benchmark.records import archive as module
from benchmark.records.archive import ArchiveError, read_archive, write_archive
from benchmark.records.record import dump, read_record, sealed
from benchmark.records.store import Store
from tests.harness.helpers import lives_of, tiny_experiment
from tests.harness.test_runner import Lab, summary_of


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.run(tiny_experiment(lab.root), tiny_experiment(lab.root, seed=1))
    lab.store.add_choice(lab.device.machine, "what", "this")
    return lab


@pytest.fixture
def sent(lab, tmp_path):
    path = tmp_path / "results.zip"
    write_archive(lab.store, path, "c0ffee", models=True)
    return path


@pytest.fixture
def away(tmp_path):
    store = Store(tmp_path / "away" / "results", tmp_path / "away" / "artifacts")
    store.check_writable()
    return store


def content(store: Store) -> dict[str, bytes]:
    files = [path for path in store.results.rglob("*") if path.is_file()]
    return {path.relative_to(store.results).as_posix(): path.read_bytes() for path in files}


def test_what_is_exported_is_imported_whole_and_twice_is_once(lab, sent, away):
    first = read_archive(away, sent)
    assert first.new == {"record": 5, "run": 2, "choice": 1, "network": 4}
    assert content(away) == content(lab.store)
    again = read_archive(away, sent)
    assert (dict(again.new), again.here, again.conflicts) == ({}, first.new, [])
    other = Lab(lab.root)
    other.store = away
    assert summary_of(other).equals(summary_of(lab))


def test_equal_content_gives_equal_bytes(lab, sent, tmp_path):
    write_archive(lab.store, tmp_path / "again.zip", "c0ffee", models=True)
    assert (tmp_path / "again.zip").read_bytes() == sent.read_bytes()


def test_an_imported_life_needs_no_work_here(lab, sent, away):
    read_archive(away, sent)
    other = Lab(away.results.parent)
    assert all("recorded" in line for line in other.run(tiny_experiment(other.root)))


def test_a_conflict_is_named_and_nothing_is_overwritten(lab, sent, away):
    (life, *_) = lives_of(tiny_experiment(lab.root), lab.device, lab.store)
    key, machine = life.key(life.plan.network), life.machine(Phase.BASE)
    own = sealed(lab.store.record(machine, key).model_copy(update={"joules": 1.0, "created": "another day"}))
    place = away.results / "records" / machine / f"{key}.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(dump(own))
    taken = read_archive(away, sent)
    assert len(taken.conflicts) == 1
    assert key in taken.conflicts[0]
    assert "another day" in taken.conflicts[0]
    assert read_record(place).joules == 1.0
    assert taken.new["record"] == 4, "the rest is taken"


def test_readings_of_a_record_that_was_not_taken_stay_away_too(lab, away, tmp_path):
    root = shutil.copytree(lab.root, tmp_path / "copy")
    store = Store(root / "results", root / "artifacts")
    path = next(path for path in store.record_paths() if path.name.count(".") == 1)
    path.with_name(f"{path.stem}.samples.csv.gz").write_bytes(b"readings of this very run")
    write_archive(store, tmp_path / "read.zip", "c", models=False)
    place = away.results / path.relative_to(store.results)
    place.parent.mkdir(parents=True)
    place.write_bytes(dump(sealed(read_record(path).model_copy(update={"joules": 1.0}))))
    assert len(read_archive(away, tmp_path / "read.zip").conflicts) == 1
    assert list(away.results.rglob("*.samples.csv.gz")) == [], "they would stand beside another measurement"


def test_a_run_that_was_asked_for_on_another_day_is_the_same_run(lab, sent, away):
    (path, *_) = lab.store.run_paths()
    place = away.results / path.relative_to(lab.store.results)
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({**json.loads(path.read_text()), "created": "2020-01-01T00:00:00+00:00"}))
    taken = read_archive(away, sent)
    assert (taken.here["run"], taken.conflicts) == (1, [])
    assert "2020-01-01" in place.read_text()


def test_a_record_without_a_seal_is_refused_on_both_sides(lab, sent, away, tmp_path):
    def unsealed(members):
        name = record_in(members)
        members[name] = json.dumps({**json.loads(members[name]), "digest": ""}).encode()

    forged(sent, change=unsealed)
    with pytest.raises(ArchiveError, match="has no digest"):
        read_archive(away, sent)
    root = shutil.copytree(lab.root, tmp_path / "copy")
    store = Store(root / "results", root / "artifacts")
    path = store.record_paths()[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": ""}))
    assert "has no digest" in write_archive(store, tmp_path / "x.zip", "c", models=False)[1][0]


def test_a_network_that_is_not_what_its_record_vouches_for_stays_at_home(lab, tmp_path):
    root = shutil.copytree(lab.root, tmp_path / "copy")
    store = Store(root / "results", root / "artifacts")
    (network, *_) = store.artifacts.glob("*.safetensors")
    network.write_bytes(network.read_bytes()[:-1] + b"?")
    counts, _ = write_archive(store, tmp_path / "x.zip", "c", models=True)
    assert counts["network"] == 3


def test_a_damaged_record_stays_at_home(lab, tmp_path):
    root = shutil.copytree(lab.root, tmp_path / "copy")
    store = Store(root / "results", root / "artifacts")
    path = store.record_paths()[0]
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    counts, left_out = write_archive(store, tmp_path / "x.zip", "c", models=False)
    assert counts["record"] == 4
    assert "edited by hand" in left_out[0]


def forged(sent, **changes) -> None:
    """Rewrite an archive: `change(names -> bytes)` of its members, then a manifest that fits, if `fits`."""
    with zipfile.ZipFile(sent) as old:
        members = {info.filename: old.read(info) for info in old.infolist()[1:]}
    changes["change"](members)
    told = {name: {"sha256": hashlib.sha256(b).hexdigest(), "size": len(b)} for name, b in members.items()}
    manifest = {"version": 1, "commit": "c", "members": told}
    changes.get("manifest", lambda it: None)(manifest)
    with zipfile.ZipFile(sent, "w") as new:
        new.writestr("manifest.json", json.dumps(manifest))
        for name, body in members.items():
            new.writestr(name, body, compress_type=zipfile.ZIP_DEFLATED)


def record_in(members) -> str:
    return next(name for name in members if name.startswith("records/") and name.count(".") == 1)


def edited(members) -> None:
    name = record_in(members)
    members[name] = members[name].replace(b'"grade": "E"', b'"grade": "A"')


def misplaced(members) -> None:
    name = record_in(members)
    members["records/elsewhere/" + name.rpartition("/")[2]] = members.pop(name)


def swapped(members) -> None:
    first, second = [name for name in members if name.startswith("runs/")]
    members[first], members[second] = members[second], members[first]


ADDED = [
    "/etc/passwd", "../outside.json", "records/../../x.json", "records/m/..", "records/m/a.json", "notes.txt",
    "results/records/m/" + "a" * 20 + ".json", "records/m/" + "a" * 20 + ".json\n", "artifacts/x.safetensors",
    "artifacts/../" + "a" * 20 + "-" + "b" * 12 + ".safetensors", "records/M\x1b[2J/" + "a" * 20 + ".json",
]  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_a_name_that_is_none_of_ours_refuses_the_archive(sent, away, name):
    before = content(away)
    forged(sent, change=lambda members: members.update({name: b"{}"}))
    with pytest.raises(ArchiveError) as refused:
        read_archive(away, sent)
    assert str(refused.value).isprintable()
    assert content(away) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edited, "edited by hand"),
        (misplaced, "whose place is another"),
        (swapped, "whose place is another"),
        (lambda m: m.update({record_in(m): b"[]"}), "no JSON object"),
        (lambda m: m.update({record_in(m): b'{"a":' * 100_000}), "cannot read"),
        (lambda m: m.update({"artifacts/" + "a" * 20 + "-" + "b" * 12 + ".safetensors": b"x"}), "vouches for"),
    ],
)
def test_a_member_that_is_not_what_it_says_refuses_the_archive(sent, away, change, why):
    before = content(away)
    forged(sent, change=change)
    with pytest.raises(ArchiveError, match=why):
        read_archive(away, sent)
    assert content(away) == before


def other_digest(manifest) -> None:
    name = record_in(manifest["members"])
    manifest["members"][name]["sha256"] = "0" * 64


def other_size(manifest) -> None:
    name = record_in(manifest["members"])
    manifest["members"][name]["size"] += 1


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (other_digest, "another SHA-256"),
        (other_size, "another size"),
        (lambda it: it["members"].pop(record_in(it["members"])), "but not in both"),
        (lambda it: it.update(version=2), "another version"),
        (lambda it: it.update(members=[]), "none of this version"),
    ],
)
def test_a_manifest_that_does_not_fit_refuses_the_archive(sent, away, manifest, why):
    forged(sent, change=lambda members: None, manifest=manifest)
    with pytest.raises(ArchiveError, match=why):
        read_archive(away, sent)
    assert not list(away.results.glob("records/*/*"))


def test_a_bomb_is_refused_before_it_is_unpacked(sent, away, monkeypatch):
    monkeypatch.setitem(module.MOST_BYTES, "json", 10_000)
    forged(sent, change=lambda members: members.update({record_in(members): b" " * 20_000}))
    unpacked = []
    monkeypatch.setattr(module, "_unpack", lambda *given: unpacked.append(1))
    with pytest.raises(ArchiveError, match="more than any of ours"):
        read_archive(away, sent)
    assert unpacked == []


def test_a_member_longer_than_it_says_is_cut_and_refused(tmp_path):
    source, target = (tmp_path / "long"), (tmp_path / "out")
    source.write_bytes(b"x" * 5_000_000)
    with source.open("rb") as from_, target.open("wb") as to:
        module._copy(from_, to, 10)
    assert target.stat().st_size == 11


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no zip at all"])
def test_what_is_no_archive_is_told(tmp_path, away, damage):
    (tmp_path / "x.zip").write_bytes(damage)
    with pytest.raises(ArchiveError, match="no whole archive"):
        read_archive(away, tmp_path / "x.zip")


def test_a_name_twice_is_refused(sent, away):
    with zipfile.ZipFile(sent, "a") as archive:
        name = archive.namelist()[1]
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"{}")
    with pytest.raises(ArchiveError, match="a name twice"):
        read_archive(away, sent)


def test_a_full_disk_keeps_nothing(sent, away, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(ArchiveError, match="make room"):
        read_archive(away, sent)
    assert not list(away.results.glob("records/*/*"))


def test_the_commands(lab, tmp_path, capsys):
    home = [f"paths.results={lab.store.results}", f"paths.artifacts={lab.store.artifacts}"]
    away = [f"paths.results={tmp_path}/r", f"paths.artifacts={tmp_path}/a"]
    file = f"file={tmp_path}/x.zip"
    assert main(["export", file, *home]) == 0
    assert "5 records" in capsys.readouterr().out
    assert main(["export", file, *home]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["import", file, *away]) == 0
    assert "new: 5 records" in capsys.readouterr().out
    assert main(["import", "--file=nothing.zip", *away]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert main(["import", *away]) == 1
    assert "name the archive" in capsys.readouterr().err
