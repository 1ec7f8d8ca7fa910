"""One job per device: an advisory lock that dies with its holder, and that every user of a machine can take."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from benchmark.energy.meters.device import Device, DeviceError, slug

SETTING = "ENERGY_LOCK_DIR"
"""The one setting of where locks lie. All processes that may meet on a machine must have the same."""
FOLDER = Path("/tmp/energy-locks")
"""One place for all users, whatever their TMPDIR."""
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def lock_dir() -> Path:
    """Where locks lie: the folder of ENERGY_LOCK_DIR, else one for all users and processes of a machine."""
    return Path(os.environ.get(SETTING) or FOLDER)


class DeviceBusy(DeviceError):
    """Another process measures on this device; the message names it."""


class DeviceLock:
    """Held from `with` to its end. Two processes cannot measure one device: their joules would mix.

    `wait_s` waits that long for the other to finish. The kernel frees the lock when its holder dies, so a stale file
    locks nothing. Raises DeviceBusy where another process holds it, DeviceError where no lock can be taken at all.
    """

    def __init__(self, device: Device, *, folder: Path | None = None, wait_s: float = 0.0) -> None:
        self.path = (folder or lock_dir()) / f"{slug(device.uuid)}.lock"
        self._device = device
        self._wait_s = wait_s
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock, or raise DeviceBusy or DeviceError."""
        fd = self._opened()
        try:
            self._wait(fd)
            self._sign(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _opened(self) -> int:
        """The lock's file. Its folder is everybody's, as /tmp is: each may add files, and remove only his own."""
        try:
            _make_folder(self.path.parent)
            try:
                # without O_CREAT first: the kernel may forbid to "create" what another user owns (protected_regular)
                return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
                os.fchmod(fd, 0o666)  # the umask took something off: another user must be able to take it, too
                return fd
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
            raise DeviceError(self._cannot(why)) from error

    def _cannot(self, why: str) -> str:
        return (
            f"cannot lock {self._device.name} by {self.path}: {why}. Remove that file, or name a folder that every "
            f"user of this machine can write to: {SETTING}=DIR, the same for all"
        )

    def _wait(self, fd: int) -> None:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in _BUSY:
                    no_locks = "its file system has no locks" if error.errno in _NO_LOCKS else error.strerror
                    raise DeviceError(self._cannot(no_locks or str(error))) from error
                if time.monotonic() >= deadline:
                    raise DeviceBusy(self._busy(fd)) from None
            time.sleep(0.05)

    def _sign(self, fd: int) -> None:
        """Write into the file who holds it: a process that finds it busy names the holder. A full disk costs the
        signature, not the lock."""
        holder = {
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv)[:200],
        }
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode(), 0)
        except OSError:
            return

    def _busy(self, fd: int) -> str:
        try:
            holder = json.loads(os.pread(fd, 4096, 0))
            command = "".join(letter if letter.isprintable() else "?" for letter in str(holder["command"]))
            who = f"process {int(holder['pid'])} since {str(holder['since'])[:32]} ({command})"
        except (ValueError, KeyError, TypeError, OSError):
            who = "another process that has not signed yet"
        return f"{self._device.name} ({self._device.uuid}) is in use by {who}; wait, or choose another ({self.path})"

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)  # which frees it

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _make_folder(folder: Path) -> None:
    """Make the folder of locks where it is missing. Raises OSError where it is a link or no folder."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    mode = folder.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "its folder is a link")
    if not stat.S_ISDIR(mode):
        raise OSError(errno.ENOTDIR, "its folder is none")
