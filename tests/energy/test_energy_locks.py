"""The lock of a device: for every user of a machine, honest about what busy means, and no way into other files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from energy_fakes import FakeGpu, VirtualClock, constant, device_of

from benchmark.energy import DeviceBusy, DeviceError, DeviceLock

ROOT = Path(__file__).parents[2]
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def device():
    return device_of(FakeGpu(VirtualClock(), constant(1)))


ANOTHER_USER = """
import os, sys
from energy_fakes import FakeGpu, VirtualClock, constant, device_of
from pathlib import Path
from benchmark.energy import DeviceBusy, DeviceLock
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))  # now: it may not read Python's own files
lock = DeviceLock(device_of(FakeGpu(VirtualClock(), constant(1))), folder=Path(sys.argv[1]))
try:
    lock.acquire()
    print("held")
except DeviceBusy as busy:
    print(busy)
"""


def another_user(folder: Path) -> str:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "energy")))
    command = [sys.executable, "-c", ANOTHER_USER, str(folder), str(NOBODY)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    return done.stdout or done.stderr


@needs_root
def test_a_second_user_can_take_the_lock_and_see_who_has_it(device, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    folder, before = tmp_path / "locks", os.umask(0o077)
    try:
        with DeviceLock(device, folder=folder):
            assert f"in use by process {os.getpid()}" in another_user(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777, "each may add locks, and remove only his own"
    assert another_user(folder) == "held\n"


def test_a_planted_link_is_refused_and_what_it_points_to_stays_whole(device, tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    lock = DeviceLock(device, folder=tmp_path / "locks")
    lock.path.parent.mkdir()
    lock.path.symlink_to(precious)
    with pytest.raises(DeviceError, match=r"cannot lock .*it is a link.*ENERGY_LOCK_DIR"):
        lock.acquire()
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_of_locks_that_is_none_is_refused(device, tmp_path, kind):
    folder = tmp_path / "locks"
    folder.symlink_to(tmp_path) if kind == "link" else folder.write_text("")
    with pytest.raises(DeviceError, match=r"cannot lock .*ENERGY_LOCK_DIR=DIR"):
        DeviceLock(device, folder=folder).acquire()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_only_would_block_means_busy(device, tmp_path, monkeypatch, code):
    def refuse(fd, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DeviceError, match=r"cannot lock .*ENERGY_LOCK_DIR") as caught:
        DeviceLock(device, folder=tmp_path, wait_s=86_400).acquire()  # it must not wait a day for that
    assert not isinstance(caught.value, DeviceBusy)


def test_whoever_finds_it_busy_leaves_the_holders_signature(device, tmp_path):
    with DeviceLock(device, folder=tmp_path) as lock:
        signed = lock.path.read_text()
        with pytest.raises(DeviceBusy, match=str(os.getpid())):
            DeviceLock(device, folder=tmp_path).acquire()
        assert lock.path.read_text() == signed
        assert json.loads(signed)["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"pid": [], "since": 1, "command": 2}', b'{"pid": 1, "since": "\\u001b[2J"}'],
)
def test_a_strange_signature_is_no_traceback(device, tmp_path, content):
    with DeviceLock(device, folder=tmp_path) as lock:
        lock.path.write_bytes(content)
        with pytest.raises(DeviceBusy, match=r"in use by (process|another process)") as caught:
            DeviceLock(device, folder=tmp_path).acquire()
    assert "\x1b" not in str(caught.value)


def test_a_full_disk_costs_the_signature_and_not_the_lock(device, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with DeviceLock(device, folder=tmp_path), pytest.raises(DeviceBusy, match="has not signed"):
        DeviceLock(device, folder=tmp_path).acquire()
