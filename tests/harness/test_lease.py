"""Leases: one holder at a time, whatever processes do, and none that outlives its holder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmark.errors import UserError
from benchmark.records import lease as module
from benchmark.records.files import StoreError
from benchmark.records.lease import Leases

HOLD = """
import sys, time
from pathlib import Path
from benchmark.records.lease import Leases
lease, who = Leases(Path(sys.argv[1])).take("key")
print("holds" if lease else who, flush=True)
time.sleep(60)
"""


class Busy(UserError):
    pass


def refuse(who: str) -> None:
    raise Busy(who)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the key."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_holds_and_the_next_is_told_who(tmp_path, other):
    with pytest.raises(Busy, match=f"process {other.pid} on"), Leases(tmp_path).holding("key", refuse):
        pass
    with Leases(tmp_path).holding("another", refuse):
        assert Leases(tmp_path).taken("another")
    assert not Leases(tmp_path).taken("another"), "given back"


def test_a_lease_that_became_anothers_is_not_given_back_in_its_name(tmp_path):
    """Who stood still may find, under the name of its own lease, that of somebody who came long after."""
    with Leases(tmp_path).holding("key", refuse):
        (path,) = tmp_path.glob("*.lease")
        anothers = json.dumps({**json.loads(path.read_text()), "id": "another"})
        path.write_text(anothers)
    assert path.read_text() == anothers


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="only POSIX leaves a process that has ended in the table")
def test_a_process_that_ended_and_was_not_fetched_holds_nothing(tmp_path, other):
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie: its parent has not asked for it yet
    assert not Leases(tmp_path).taken("key")


def test_a_killed_holder_is_followed_at_once(tmp_path, other):
    other.kill()
    other.wait()
    with Leases(tmp_path).holding("key", refuse):
        assert [path.name for path in tmp_path.glob("*.lease")] == ["key.2.lease"], "the next generation alone"


def test_a_stopped_holder_on_this_machine_keeps_its_lease(tmp_path, other, monkeypatch):
    monkeypatch.setattr(module, "EXPIRES_S", 0.0)
    leases = Leases(tmp_path)
    for _ in range(3):
        assert leases.take("key")[0] is None, "it is alive, however long it takes"


def of_another_machine(tmp_path, beat: int = 0) -> None:
    content = {"id": "x", "host": "far", "pid": 1, "started": "1", "where": "elsewhere", "beat": beat}
    (tmp_path / "key.4.lease").write_text(json.dumps(content))


def test_one_of_another_machine_expires_by_the_clock_of_who_waits(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    of_another_machine(tmp_path)
    leases = Leases(tmp_path)
    assert leases.take("key") == (None, "process 1 on far")
    clock[0] += module.EXPIRES_S - 1
    of_another_machine(tmp_path, beat=1)
    assert leases.take("key")[0] is None
    clock[0] += module.EXPIRES_S - 1
    assert leases.take("key")[0] is None, "it was written meanwhile"
    clock[0] += 2
    lease, _ = leases.take("key")
    assert lease.path.name == "key.5.lease"


def test_what_is_no_lease_expires_too_and_follows_no_link(tmp_path, monkeypatch):
    precious = tmp_path / "precious.txt"
    precious.write_text("all I have")
    folder = tmp_path / "leases"
    folder.mkdir()
    (folder / "key.1.lease").symlink_to(precious)
    (folder / "key.2.lease").write_bytes(b"\xff\xfe{")
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    leases = Leases(folder)
    assert leases.take("key") == (None, "another process")
    clock[0] += module.EXPIRES_S + 1
    leases.take("key")
    clock[0] += module.EXPIRES_S + 1
    assert leases.take("key")[0] is not None
    assert precious.read_text() == "all I have"


def test_two_that_saw_different_generations_both_begin_again(tmp_path, monkeypatch):
    create = module.create

    def slower(path, content):
        of_another_machine(tmp_path)  # somebody else makes generation 4 meanwhile
        return create(path, content)

    monkeypatch.setattr(module, "create", slower)
    lease, who = Leases(tmp_path).take("key")
    assert lease is None
    assert who == "process 1 on far"
    assert [path.name for path in tmp_path.glob("*.lease")] == ["key.4.lease"]


def test_a_lease_beats_and_one_that_was_taken_over_is_not_brought_back(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    leases = Leases(tmp_path)
    with leases.holding("key", refuse):
        path = tmp_path / "key.1.lease"
        deadline = time.monotonic() + 20
        while json.loads(path.read_text())["beat"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert json.loads(path.read_text())["beat"] >= 2
        path.unlink()
        time.sleep(0.1)
        assert not path.exists()


def test_threads_of_one_process_take_turns(tmp_path):
    leases, inside, most = Leases(tmp_path), [], []

    def work() -> None:
        with leases.holding("key", lambda who: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 4


def test_a_folder_that_takes_no_lease_is_told(tmp_path):
    (tmp_path / "leases").write_text("a file")
    with pytest.raises(StoreError, match="leases"), Leases(tmp_path / "leases").holding("key", refuse):
        pass
    assert os.path.isfile(tmp_path / "leases")
