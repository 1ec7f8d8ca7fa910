"""Leases: which process works on a stage. They hold on a shared file system, and outlive no holder.

A lease is a small file that its holder writes anew every few seconds. It is taken by making a file that must not exist
yet, which every file system that processes share does for one of them alone. It ends when the holder removes it; when
the holder, a process on this machine, has died; or when nobody wrote it for `EXPIRES_S` by the clock of the one who
waits (clocks of machines need not agree). Who takes over makes the next generation of the lease, and removes nothing
that is alive. Were a holder to stand still for that long and then go on, its stage is worked twice: records are written
once, so the second is booked as repeated.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.records.files import StoreError, create, read_words, replace

BEAT_S = 10.0
EXPIRES_S = 120.0
"""Many beats: a file system may take half a minute to show them, and a library may keep a process from beating."""


class Lease(NamedTuple):
    """A lease that this process holds."""

    path: Path
    content: dict[str, Any]


class Leases:
    """The leases of a folder. One object is used by any number of threads of a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[Path, dict[str, Any]] = {}
        self._seen: dict[Path, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._beating: threading.Thread | None = None

    @contextlib.contextmanager
    def holding(self, key: str, busy: Callable[[str], None]) -> Iterator[None]:
        """Hold a key. While another process has it, `busy` is called with who that is, then it is tried again after a
        while; what `busy` raises ends the waiting. Raises StoreError where no lease can be written."""
        wait_s = 0.05
        while True:
            lease, who = self.take(key)
            if lease is not None:
                break
            busy(who)
            time.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, 2.0)
        try:
            yield
        finally:
            self._release(lease)

    def take(self, key: str) -> tuple[Lease | None, str]:
        """The lease of a key, or None and who has it."""
        before = self._there(key)
        for path in before.values():
            if not self._gone(path):
                return None, _holder(path)
        lease = Lease(self._folder / f"{key}.{max(before, default=0) + 1}.lease", _signature())
        if not create(lease.path, json.dumps(lease.content).encode()):
            return None, _holder(lease.path)
        others = [path for path in self._there(key).values() if path != lease.path and path not in before.values()]
        if others:  # somebody saw another generation than we did: neither may be sure, so both begin again
            lease.path.unlink(missing_ok=True)
            return None, _holder(others[0])
        for path in before.values():
            path.unlink(missing_ok=True)
        self._begin(lease)
        return lease, ""

    def taken(self, key: str) -> bool:
        """Whether a process that is alive holds a key."""
        return any(not self._gone(path) for path in self._there(key).values())

    def _there(self, key: str) -> dict[int, Path]:
        """The files of a key's leases by their generation."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"cannot look for leases under {self._folder}: {error.strerror or error}") from error
        found = [match for match in map(_NAME.fullmatch, names) if match and match["key"] == key]
        return {int(match["generation"]): self._folder / match.string for match in found}

    def _gone(self, path: Path) -> bool:
        """Whether a lease has ended: its holder died on this machine, or nobody wrote it for long."""
        try:
            words = read_words(path)
        except StoreError:
            if not path.exists() and not path.is_symlink():
                return True
            words = "unreadable"
        dead = _dead(words)
        if dead is not None:
            return dead
        now = time.monotonic()
        seen, since = self._seen.get(path, ("", now))
        if seen != words:
            since = now
        self._seen[path] = (words, since)
        return now - since > EXPIRES_S

    def _begin(self, lease: Lease) -> None:
        with self._lock:
            self._held[lease.path] = lease.content
            if self._beating is None or not self._beating.is_alive():
                self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._beating.start()

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._held.pop(lease.path, None)
            with contextlib.suppress(OSError):
                if json.loads(lease.path.read_bytes()).get("id") == lease.content["id"]:
                    lease.path.unlink()

    def _beat(self) -> None:
        """Write what is held every few seconds; ends when nothing is."""
        number = 0
        while True:
            time.sleep(BEAT_S)
            number += 1
            with self._lock:
                if not self._held:
                    self._beating = None
                    return
                for path, content in self._held.items():
                    if path.is_file():  # one that was taken over is not brought back
                        with contextlib.suppress(StoreError):  # a full disk: the next beat may come through
                            replace(path, json.dumps({**content, "beat": number}).encode(), durable=False)


_NAME = re.compile(r"(?P<key>[\w.-]+)\.(?P<generation>[1-9][0-9]{0,8})\.lease")


def _signature() -> dict[str, Any]:
    return {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid()),
            "where": _where(), "beat": 0}  # fmt: skip


def _holder(path: Path) -> str:
    """Who holds a lease, for people."""
    with contextlib.suppress(StoreError, ValueError):
        content = json.loads(read_words(path))
        host, pid = content.get("host"), content.get("pid")
        if isinstance(pid, int) and isinstance(host, str) and re.fullmatch(r"[\w.-]{1,80}", host):
            return f"process {pid} on {host}"
    return "another process"


def _dead(words: str) -> bool | None:
    """Whether the holder of a lease, a process on this machine, has died; None where that cannot be told."""
    try:
        content = json.loads(words)
        where, pid, started = content["where"], content["pid"], content["started"]
    except (ValueError, KeyError, TypeError):
        return None
    if not where or where != _where() or not isinstance(pid, int) or not started:
        return None
    return bool(_started(pid) != started)


@functools.cache
def _where() -> str:
    """This boot of this machine and its numbering of processes; empty where the system tells neither."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: a number may be given to another process later. Empty where there is
    none (a zombie has ended, too)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
