"""The journal of an attempt at a stage: what it has spent so far, until a record accounts for it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from benchmark.plan.task import Config
from benchmark.records.files import Unreadable, read_json


class Attempt(Config):
    """The journal of an attempt. `closed` where it ended in order, and `joules` is all it spent."""

    id: str
    key: str
    joules: float | None
    max_w: float | None
    seconds: float
    longest_gap_s: float
    at: str
    closed: bool
    host: str = ""
    device_uuid: str = ""
    source: str = ""


def read_attempt(path: Path) -> Attempt:
    """A journal from its file. Raises Unreadable where the file is none."""
    try:
        return Attempt.model_validate(read_json(path))
    except ValidationError as error:
        raise Unreadable(f"{path} is no journal of an attempt: {error.errors()[0]['msg']}") from error
