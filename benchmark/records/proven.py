"""Which files of records were judged sound before: of thousands, judging them anew takes most of a report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pydantic_core import from_json

from benchmark.energy.judge import reading
from benchmark.records import files, record
from benchmark.records.files import StoreError, Unreadable, replace
from benchmark.records.record import Record, sound_record

MANY = 2_000
"""Below so many records nothing is remembered: judging them takes a second."""

FEWEST_WORKERS, MOST_WORKERS, SHARE = 4, 16, 500
"""Processes that judge at once, and how many files each is given at a time. On two busy cores it took longer so."""

NAME = ".proven.json"

State = list[int]


class Proven:
    """Files that were judged sound, by size, inode and both of their times. One that was touched since, copied or
    brought from elsewhere has others, and is judged anew; so is everything when the judgement changes. `check` always
    judges."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, State] = {}
        self._now: dict[str, State] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_bytes())
            if isinstance(found, dict) and found.get("judge") == _judge() and isinstance(found.get("files"), dict):
                self._kept = found["files"]
        self._before = dict(self._kept)

    def record(self, path: Path) -> Record:
        """A sound record from its file, judged only where it must be. Raises Unreadable, as `sound_record` does."""
        name, state = str(path), _state(path)  # before it is read: what changes meanwhile is judged next time
        known = state is not None and self._before.get(name) == state
        found = Record.model_validate(from_json(_content(name))) if known else sound_record(path)
        if state is not None:
            self._now[name] = state
        return found

    def judge(self, paths: Sequence[Path]) -> None:
        """Judge the files that are not known yet on all cores, where they are many. One that is not sound is judged
        once more when it is read, which says why."""
        new = [str(path) for path in paths if self._before.get(str(path)) != _state(path)]
        workers = min(os.cpu_count() or 1, MOST_WORKERS)
        if len(new) < MANY or workers < FEWEST_WORKERS:
            return
        shares = [new[start : start + SHARE] for start in range(0, len(new), SHARE)]
        # a worker that is lost, or cannot begin, costs time alone: what it would have judged is judged here
        spawned = multiprocessing.get_context("spawn")
        with contextlib.suppress(BrokenProcessPool, OSError), ProcessPoolExecutor(workers, spawned) as pool:
            for sound in pool.map(_sound, shares):
                self._before |= sound

    def save(self) -> None:
        """Write what is known. A folder that cannot be written forgets it."""
        if self._now != self._kept:
            content = json.dumps({"judge": _judge(), "files": self._now}, separators=(",", ":"))
            with contextlib.suppress(StoreError, OSError):
                replace(self._path, content.encode(), durable=False)


@contextlib.contextmanager
def proven(folder: Path, paths: Sequence[Path]) -> Iterator[Proven | None]:
    """What is remembered in a folder of these files, kept at the end; None for few of them."""
    if len(paths) < MANY:
        yield None
        return
    known = Proven(folder / NAME)
    known.judge(paths)
    yield known
    known.save()


def _sound(names: Sequence[str]) -> dict[str, State]:
    """Those of some files that hold sound records, with their states of before they were read."""
    found = {}
    for name in names:
        path = Path(name)
        state = _state(path)
        with contextlib.suppress(Unreadable):
            sound_record(path)
            if state is not None:
                found[name] = state
    return found


def _content(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


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
