"""One job per device: an advisory lock that dies with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from benchmark.energy.meters.device import Device, DeviceError, slug


def default_lock_dir() -> Path:
    """Where locks lie: one folder for all processes of a machine."""
    import tempfile

    return Path(tempfile.gettempdir()) / "full-cycle-energy-benchmark"


class DeviceBusy(DeviceError):
    """Another process measures on this device; the message names it."""


class DeviceLock:
    """Held from `with` to its end. Two processes cannot measure one device: their joules would mix.

    `wait_s` waits that long for the other to finish. The kernel frees the lock when its holder dies, so a stale file
    locks nothing.
    """

    def __init__(self, device: Device, *, lock_dir: Path | None = None, wait_s: float = 0.0) -> None:
        self.path = (lock_dir or default_lock_dir()) / f"{slug(device.uuid)}.lock"
        self._device = device
        self._wait_s = wait_s
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise DeviceBusy."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    message = self._busy(fd)
                    os.close(fd)
                    raise DeviceBusy(message) from None
            time.sleep(0.05)
        holder = {
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv)[:200],
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
        self._fd = fd

    def _busy(self, fd: int) -> str:
        try:
            holder = json.loads(os.pread(fd, 4096, 0))
            who = f"process {holder['pid']} since {holder['since']} ({holder['command']})"
        except (ValueError, KeyError, OSError):
            who = "another process that has not signed yet"
        return f"{self._device.name} ({self._device.uuid}) is in use by {who}; wait, or choose another ({self.path})"

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
