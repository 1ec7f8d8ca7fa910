"""Facts on disk: write-once records, attempts, runs, devices. Every write is atomic."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.plan.run_file import RunFile
from benchmark.records.artifacts import Artifacts
from benchmark.records.files import StoreError, Unreadable, create, listed, plain, read_json, replace, sweep
from benchmark.records.record import Record, dump, sealed, sound_record


class Store:
    """The two folders of a study: `results` (facts, committed) and `artifacts` (disposable)."""

    def __init__(self, results: Path, artifacts: Path) -> None:
        self.results = results
        self.artifacts = artifacts
        self.outputs = Artifacts(artifacts)

    def check_writable(self) -> None:
        """Raise StoreError, before the first stage, if a folder cannot take a file or the disk is almost full."""
        for folder in (self.results, self.artifacts):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise StoreError(
                    f"cannot write to {folder}: {error.strerror or error}; make it writable, or choose another place "
                    f"with paths.{'results' if folder is self.results else 'artifacts'}="
                ) from error
            free = shutil.disk_usage(folder).free
            if free < 200e6:
                raise StoreError(f"only {free / 1e6:.0f} MB are free under {folder}: make room (200 MB at least) first")
            sweep(folder)
        self.outputs.register(self.results)

    # --- records ---------------------------------------------------------------------------------------------------

    def record(self, machine: str, key: str, fn: str = "") -> Record | None:
        """The first record of a stage (of function `fn`, where given) on a machine, or None. Raises Unreadable for one
        that no table would accept."""
        path = self.results / "records" / machine / f"{key}.json"
        record = sound_record(path) if path.is_file() else None
        if record is not None and fn not in ("", record.fn):
            raise Unreadable(f"{path} is a record of {record.fn}, not of {fn}: remove it to measure again")
        return record

    def copies(self, machine: str, key: str) -> list[str]:
        """The SHA-256 of every artifact that a record on a machine vouches for: the stage's own, then its repeats'."""
        return [record.artifact for record in self.copies_of(machine, key) if record.artifact]

    def copies_of(self, machine: str, key: str) -> list[Record]:
        """Every record of a stage on a machine: its own, then its repeats."""
        folder = self.results / "records" / machine
        repeats = [sound_record(path) for path in _named(folder, f"{key}.*.json")]
        return [record for record in (self.record(machine, key), *repeats) if record is not None]

    def records(self) -> Iterator[Record]:
        """Every record, in a stable order. Raises StoreError at a file that no table would accept."""
        for path in self.record_paths():
            yield sound_record(path)

    def record_paths(self) -> list[Path]:
        """The files of all records."""
        return listed(self.results / "records")

    def add(self, record: Record, samples: bytes = b"") -> Record:
        """Keep a record for good, sealed by its digest: as the stage's own if it is the first, else beside it as a
        repeat.

        The meter's raw `samples` (gzipped CSV) lie beside it. Returns what was kept.
        """
        folder = self.results / "records" / record.machine
        record = record.model_copy(update={"provenance": plain(record.provenance)})  # else it is kept, and never read
        first = sealed(record)
        if not record.group and create(folder / f"{record.key}.json", dump(first)):
            return self._with_samples(first, samples, folder / record.key)
        repeat = first if record.group else sealed(record.model_copy(update={"repeat": True}))
        name = f"{record.key}.{uuid.uuid4().hex[:8]}"
        if not create(folder / f"{name}.json", dump(repeat)):
            raise StoreError(f"two records drew the same name under {folder}: run again")
        return self._with_samples(repeat, samples, folder / name)

    def _with_samples(self, record: Record, samples: bytes, stem: Path) -> Record:
        if samples:
            replace(stem.parent / f"{stem.name}.samples.csv.gz", samples)
        return record

    def measurements(self, machine: str, key: str) -> list[Record]:
        """All records of a measurement that may be repeated (one file each), oldest first."""
        found = [sound_record(path) for path in _named(self.results / "records" / machine, f"{key}.*.json")]
        return sorted((record for record in found if record.group), key=lambda record: record.created)

    def measured_before(self, machine: str, key: str) -> int:
        """How many measurements were kept of one engine, readable or not: a clock that counts only forward."""
        return len(_named(self.results / "records" / machine, f"{key}.*.json"))

    def booked_attempts(self, machine: str) -> set[str]:
        """The ids of the attempts that any measurement on a machine accounts for."""
        found: set[str] = set()
        for path in _named(self.results / "records" / machine, "*.*.json"):
            with contextlib.suppress(StoreError):
                found.update(map(str, sound_record(path).provenance.get("attempt_ids", ())))
        return found

    # --- attempts: what an unfinished stage has spent --------------------------------------------------------------

    def attempt_paths(self, machine: str, key: str) -> list[Path]:
        """The journals of attempts at a stage that no record accounts for yet."""
        return _named(self.results / "attempts" / machine, f"{key}-*.json")

    def unfinished(self) -> list[Path]:
        """Every journal on any machine: of stages that run now, or were interrupted and have no record yet."""
        return listed(self.results / "attempts")

    def write_attempt(self, machine: str, key: str, attempt: Mapping[str, Any]) -> None:
        """Write or replace the journal of one attempt, named by its `id`."""
        path = self.results / "attempts" / machine / f"{key}-{attempt['id']}.json"
        replace(path, json.dumps(attempt).encode(), durable=False)  # every few seconds: must not wait for the disk

    def clear_attempts(self, machine: str, key: str, ids: Collection[str] | None = None) -> None:
        """Drop a stage's journals (of these attempts alone) once a record holds their sums."""
        for path in self.attempt_paths(machine, key):
            if ids is None or path.stem.removeprefix(f"{key}-") in ids:
                path.unlink(missing_ok=True)

    # --- runs ------------------------------------------------------------------------------------------------------

    def add_run(self, run: RunFile) -> None:
        """Remember that a life was asked for; the same one twice is one file, the first that can be read."""
        path = self.results / "runs" / run.infer_machine / f"{run.name}.json"
        content = json.dumps(run.model_dump(mode="json"), indent=1).encode()
        if create(path, content):
            return
        with contextlib.suppress(StoreError):
            read_run(path)
            return
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is no plain file: remove it, because a run is to be remembered there")
        replace(path, content)

    def runs(self) -> list[RunFile]:
        """Every life that was ever asked for; files that are no runs are left out (`check` names them)."""
        found = []
        for path in self.run_paths():
            with contextlib.suppress(StoreError):
                found.append(read_run(path))
        return found

    def run_paths(self) -> list[Path]:
        """The files of all runs."""
        return listed(self.results / "runs")

    # --- devices: what probing found ------------------------------------------------------------------------------

    def add_device(self, machine: str, facts: Mapping[str, Any]) -> Path:
        """Keep what a probe found, under its `id`, for good; returns the file."""
        path = self.results / "devices" / machine / f"{facts['id']}.json"
        create(path, json.dumps(facts, indent=1, allow_nan=False).encode())
        return path

    def device(self, board: str, driver: str) -> dict[str, Any] | None:
        """The newest probe of a board (its UUID) under this driver, or None: another driver may show other meters."""
        found = []
        for path in self.device_paths():
            with contextlib.suppress(StoreError):  # `check` names it
                found.append(read_device(path))
        own = [facts for facts in found if _board_of(facts) == (board, driver)]
        return max(own, key=lambda facts: str(facts.get("created")), default=None)

    def device_paths(self) -> list[Path]:
        """The files of all probes."""
        return listed(self.results / "devices")

    def choice(self, machine: str, what: str) -> str | None:
        """What was chosen on a machine, once and for all, about `what`; or None."""
        path = self._choice_path(machine, what)
        if not path.exists():
            return None
        chosen = read_json(path).get("chosen")
        if not isinstance(chosen, str) or not chosen:
            raise Unreadable(f"{path} names no choice; restore it, or remove it to choose again")
        return chosen

    def add_choice(self, machine: str, what: str, chosen: str) -> None:
        """Keep a choice; the first one stays."""
        create(self._choice_path(machine, what), json.dumps({"what": what, "chosen": chosen}, indent=1).encode())

    def _choice_path(self, machine: str, what: str) -> Path:
        name = hashlib.sha256(what.encode()).hexdigest()[:12]
        return self.results / "devices" / machine / "choices" / f"{name}.json"


def _named(folder: Path, pattern: str) -> list[Path]:
    """The JSON files of a folder with such a name. Raises Unreadable where it may not be looked into."""
    return [path for path in listed(folder, levels=0) if fnmatchcase(path.name, pattern)]


class Probed(BaseModel):
    """What of a probe is used when its board is measured. Whatever else it found is kept beside it."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    id: str
    device: dict[str, Any]
    counter_tick_ms: float | None = Field(default=None, gt=0, lt=10_000)
    power_fields: dict[str, ProbedField] = Field(default_factory=dict)
    idle_bare_w: float | None = Field(default=None, ge=0, lt=10_000)
    idle_context_w: float | None = Field(default=None, ge=0, lt=10_000)


class ProbedField(BaseModel):
    """What a probe found of a power field."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    period_ms: float | None = Field(default=None, gt=0, lt=100_000)


def read_device(path: Path) -> dict[str, Any]:
    """A probe from its file, as data. Raises Unreadable where the file is none, or cannot be true."""
    content = read_json(path)
    try:
        Probed.model_validate(content)
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(map(str, finding["loc"]))
        raise Unreadable(
            f"{path} is no probe of a device: {where}: {finding['msg']}; remove it and probe again"
        ) from error
    return content


def _board_of(facts: Mapping[str, Any]) -> tuple[Any, Any]:
    device = facts.get("device")
    return (device.get("uuid"), device.get("driver")) if isinstance(device, dict) else (None, None)


def read_run(path: Path) -> RunFile:
    """A run from its file. Raises Unreadable where the file is none."""
    content = read_json(path)
    try:
        run = RunFile.model_validate(content)
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(map(str, finding["loc"]))
        raise Unreadable(
            f"{path} is no run file of this version: {where}: {finding['msg']}; run again what it was for"
        ) from error
    if (path.parent.name, path.stem) != (run.infer_machine, run.name):
        raise Unreadable(f"{path} holds the run {run.name} of {run.infer_machine}, whose place is another: remove it")
    return run
