"""Which files of records were judged sound before: of thousands, judging them anew takes most of a report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from benchmark.energy.judge import reading
from benchmark.records import files, record
from benchmark.records.files import StoreError, replace
from benchmark.records.record import Record, sound_record

MANY = 2_000
"""Below so many records nothing is remembered: judging them takes a second."""

NAME = ".proven.json"

State = list[int]


class Proven:
    """Files that were judged sound, by size, inode and both of their times. One that was touched since, copied or
    brought from elsewhere has others, and is judged anew; so is everything when the judgement changes. `check` always
    judges."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[str, State] = {}
        self._now: dict[str, State] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_bytes())
            if isinstance(found, dict) and found.get("judge") == _judge() and isinstance(found.get("files"), dict):
                self._before = found["files"]

    def record(self, path: Path) -> Record:
        """A sound record from its file, judged only where it must be. Raises Unreadable, as `sound_record` does."""
        name, state = str(path), _state(path)  # before it is read: what changes meanwhile is judged next time
        known = state is not None and self._before.get(name) == state
        found = Record.model_validate(json.loads(path.read_bytes())) if known else sound_record(path)
        if state is not None:
            self._now[name] = state
        return found

    def save(self) -> None:
        """Write what is known. A folder that cannot be written forgets it."""
        if self._now != self._before:
            content = json.dumps({"judge": _judge(), "files": self._now}, separators=(",", ":"))
            with contextlib.suppress(StoreError, OSError):
                replace(self._path, content.encode(), durable=False)


@contextlib.contextmanager
def proven(folder: Path, count: int) -> Iterator[Proven | None]:
    """What is remembered in a folder, kept at the end; None for few records."""
    if count < MANY:
        yield None
        return
    known = Proven(folder / NAME)
    yield known
    known.save()


def _state(path: Path) -> State | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _judge() -> str:
    """The digest of the code that judges."""
    sources = (Path(module.__file__ or "").read_bytes() for module in (files, record, reading))
    return hashlib.sha256(b"".join(sources)).hexdigest()
