"""The record of a stage: what it cost, how that is known, and a seal that shows edits."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from benchmark.energy.judge.reading import GRADES
from benchmark.plan.task import Config
from benchmark.records.files import Unreadable, read_json


class Record(Config):
    """One stage, run once, as measured. Joules are NaN (null on disk) with a `reason` where no meter could tell.

    `artifact` is the SHA-256 of what it handed on (empty where it hands on nothing), `input_artifacts` those of what it
    was given. `joules` are useful ones; `repeated_joules` were spent on epochs that were lost and run again. One
    with `repeat=True` is the whole stage run again (its artifact was lost): everything in it counts as repeated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    version: Literal[1] = 1
    key: str
    fn: str
    fn_version: int
    params: dict[str, Any]
    inputs: dict[str, str]
    artifact: str = ""
    artifact_bytes: int = Field(default=0, ge=0)
    input_artifacts: dict[str, str] = Field(default_factory=dict)
    joules: float
    ci95_joules: float
    repeated_joules: float
    seconds: float = Field(ge=0)
    source: str
    grade: str
    reason: str
    values: dict[str, float]
    details: dict[str, Any]
    reading: dict[str, Any]
    provenance: dict[str, Any]
    device_name: str
    machine: str
    commit: str
    created: str
    attempts: int = Field(ge=1)
    repeat: bool = False
    group: str | None = None
    digest: str = ""

    @field_validator("joules", "ci95_joules", "repeated_joules", mode="before")
    @classmethod
    def _nan_from_null(cls, value: Any) -> Any:
        return math.nan if value is None else value

    @field_serializer("joules", "ci95_joules", "repeated_joules", when_used="json")
    def _null_from_nan(self, value: float) -> float | None:
        return value if math.isfinite(value) else None

    @field_validator("values", mode="before")
    @classmethod
    def _values_from_null(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values  # pydantic says what is wrong with it
        return {name: math.nan if value is None else value for name, value in values.items()}

    @field_serializer("values", when_used="json")
    def _values_to_null(self, values: dict[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


class Origin(BaseModel):
    """What of a record's provenance is used in rows and checks. Whatever else it says is kept beside it."""

    model_config = ConfigDict(extra="allow", strict=True)

    versions: dict[str, str] = Field(default_factory=dict)
    power_limit_w: float | None = Field(default=None, gt=0, lt=100_000)
    device_uuid: str = ""
    driver: str = ""
    threads: int | None = Field(default=None, ge=0, lt=1_000_000)
    environment: dict[str, str] = Field(default_factory=dict)
    outside: dict[str, str] = Field(default_factory=dict)
    attempt_ids: list[str] = Field(default_factory=list)


def sound_record(path: Path) -> Record:
    """A record from its file, if rows may rest on it: one place decides what counts as recorded, for tables and runs.

    Raises Unreadable where the file is no record, was edited by hand, cannot be true, or lies in another's place.
    """
    content = read_json(path)
    record, seal = _record(path, content), _fault_of_seal(content)
    # a number that somebody typed in is no measurement; without its digest nobody can tell that it was not
    found = [*faults_of_place(path, record), *faults(record), *([seal] if seal else [])]
    if found:
        raise Unreadable(f"{path}: {'; '.join(found)}; restore it, or remove it to measure again")
    return record


def faults_of_place(path: Path, record: Record) -> Iterator[str]:
    """What in a file's place does not fit the record in it: a copy under another name would count twice."""
    key, _, mark = path.name.removesuffix(".json").partition(".")
    if key != record.key or path.parent.name != record.machine:
        yield f"it holds the record of {record.key} on {record.machine}, whose place is another"
    elif bool(mark) != (record.repeat or record.group is not None):
        yield "it has the name of a repeat or of a measurement, and is none" if mark else "it has a first record's name"


def read_record(path: Path) -> Record:
    """A record from its file, true or not. Raises Unreadable where the file is no record."""
    return _record(path, read_json(path))


def _record(path: Path, content: Mapping[str, Any]) -> Record:
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(map(str, finding["loc"]))
        if finding["loc"] == ("version",):
            raise Unreadable(f"{path} was written by another version of the suite: update it to read this") from error
        raise Unreadable(f"{path} is no record of this version: {where}: {finding['msg']}") from error


def faults(record: Record) -> Iterator[str]:
    """What in a record cannot be true: a table must leave such a record out, and say so."""
    for name in ("joules", "repeated_joules", "ci95_joules"):
        if getattr(record, name) < 0:
            yield f"{name} {getattr(record, name)} is negative"
        if getattr(record, name) > MOST_JOULES:
            yield f"{name} {getattr(record, name)} is more than any stage can spend"
    if record.seconds > MOST_SECONDS:
        yield f"{record.seconds} seconds are more than a stage can take"
    if record.grade not in tuple(GRADES):
        yield f"unknown grade {record.grade!r}"
    if max(record.artifact_bytes, record.attempts, abs(record.fn_version)) > MOST_COUNT:
        yield "it counts more bytes, attempts or versions than there can be"
    for name, value in record.values.items():
        if abs(value) > MOST_VALUE:
            yield f"{name} {value} is more than anything here can be"
        if name.endswith("_pct") and not (math.isnan(value) or 0 <= value <= 100):
            yield f"{name} {value} is no percentage"
        if name.endswith("_joules") and name != "iec_dynamic_joules" and value < 0:
            yield f"{name} {value} is negative"
    try:
        Origin.model_validate(record.provenance)
    except ValidationError as error:
        finding = error.errors()[0]
        yield f"its provenance cannot be: {'.'.join(map(str, finding['loc']))}: {finding['msg']}"
    if record.fn == BUILD and not isinstance(record.details.get("signature"), str):
        yield "it is of an engine, and has no signature"
    if not isinstance(record.details.get("measured_before", 0), int):
        yield "how many measurements came before it is no number"


MOST_JOULES, MOST_SECONDS, MOST_VALUE, MOST_COUNT = 1e15, 1e10, 1e18, 2**53
BUILD = "benchmark.deploy.build:build_engine"


EDITED = "was edited by hand"


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a record's JSON (without its own `digest`), whatever the order and layout of the file."""
    sealed = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, allow_nan=False).encode()).hexdigest()


def fault_of_seal(path: Path) -> str:
    """What is wrong with the digest of a record's file; empty if nothing was changed since. Raises Unreadable."""
    return _fault_of_seal(read_json(path))


def _fault_of_seal(content: Mapping[str, Any]) -> str:
    if not content.get("digest"):
        return "has no digest: whether it was edited by hand cannot be told"
    return "" if content["digest"] == digest(content) else f"{EDITED}: its digest does not fit its content"


def sealed(record: Record) -> Record:
    """The record with its digest."""
    return record.model_copy(update={"digest": digest(json.loads(dump(record)))})


def dump(record: Record) -> bytes:
    """A record as the bytes of its file."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False).encode()
