"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import UserError

MOST_BYTES = 256 * 2**20
MOST_LEVELS = 100
DAY_S = 86_400.0
_TEMPORARY = re.compile(r"\..+\.(json|csv|gz|safetensors|checkpoint|[0-9a-f]{12})\.[a-z0-9_]{8}")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


class StoreError(UserError):
    """A folder cannot be written or a file cannot be read; the message says which, why, and what to do."""


class Unreadable(StoreError):
    """A stored file holds nothing that can be used. Others may be sound: it stops no more than what rests on it."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises Unreadable, also for what is no plain file (reading a pipe would never end)."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no plain file")
        if state.st_size > MOST_BYTES:
            raise ValueError(f"it has {state.st_size / 1e6:.0f} MB, and nothing that is kept here has so many")
        content = path.read_bytes()
        value = json.loads(content, parse_constant=_no_number, parse_float=_decimal, parse_int=_whole)
        _usable(value, content)
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"cannot read {path}: {error}; restore it, or remove it to measure again") from error
    if not isinstance(value, dict):
        raise Unreadable(f"{path} holds no JSON object; restore it, or remove it to measure again")
    return value


def read_words(path: Path) -> str:
    """The text of a small file. Raises Unreadable."""
    try:
        if not path.is_file():
            raise ValueError("it is no plain file")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot read {path}: {error}; restore or remove it") from error


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left below a folder: named as ours are, and a day old."""
    if not folder.is_dir():
        return
    for path in folder.rglob(".*"):
        with contextlib.suppress(OSError):
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and time.time() - path.stat().st_mtime > DAY_S:
                path.unlink()


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _decimal(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:20]} is too large a number")
    return value


def _whole(word: str) -> int:
    if len(word) > 300:
        _decimal(word)  # whatever takes it for a float later must not overflow
    return int(word)


def _usable(value: Any, content: bytes) -> None:
    """Raise ValueError where JSON holds what Python reads and then trips over: more levels than its own functions can
    follow, or half a character."""
    layer, levels = [value], 0
    if content.count(b"{") + content.count(b"[") <= MOST_LEVELS:
        layer = []  # not as many levels as brackets
    while layer:
        levels += 1
        if levels > MOST_LEVELS:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
        inner = (each.values() if isinstance(each, dict) else each for each in layer if isinstance(each, dict | list))
        layer = [each for own in inner for each in own]
    if _HALF.search(content):
        json.dumps(value, ensure_ascii=False).encode()


def listed(folder: Path, levels: int = 1, suffix: str = ".json") -> list[Path]:
    """The files with a suffix that lie a number of folders below a folder, in a stable order, but hidden ones.

    A folder that is not there holds nothing. Raises Unreadable for one that may not be looked into: what it holds would
    silently be missing.
    """
    try:
        found = sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(
            f"cannot look into {folder}: {error.strerror or error}; make it a folder that you may read and enter "
            "(chmod u+rx), or remove it"
        ) from error
    if levels:
        below = (path for path in found if not path.name.startswith(".") and _is_folder(path))
        return [path for inner in below for path in listed(inner, levels - 1, suffix)]
    return [path for path in found if path.name.endswith(suffix) and not path.name.startswith(".")]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise Unreadable(f"cannot look into {path.parent}: {error.strerror or error}; make it accessible") from error


def plain(value: Any) -> Any:
    """Data as JSON can say it: a number that is none becomes null, numpy's scalars numbers, tuples lists, and half a
    character (of a variable that is no UTF-8) a question mark.

    Raises TypeError for what is no data at all.
    """
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a scalar of numpy or torch
        return plain(value.item())
    raise TypeError(f"a {type(value).__name__} is no data that a record can hold")


def replace(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, in place of an older one; `durable` waits until it lies on the disk.

    Raises StoreError.
    """
    try:
        os.replace(_write_beside(path, content, durable), path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def create(path: Path, content: bytes) -> bool:
    """Write a new file whole or not at all; False where the name is taken, also by a process that was quicker."""
    try:
        beside = _write_beside(path, content)
        try:
            _claim(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def _claim(beside: Path, path: Path) -> None:
    """Give a written file its name, if it is free. Raises FileExistsError where it is not.

    By a hard link, which takes a name and its content at once. A folder without hard links (exFAT, some network mounts)
    takes the name first, and the content a moment later.
    """
    try:
        os.link(beside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        os.replace(beside, path)


def _write_beside(path: Path, content: bytes, durable: bool = True) -> Path:
    """The content under a temporary name in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
