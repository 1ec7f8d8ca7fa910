"""Facts and artifacts on disk: write-once records, attempts, runs, and networks. Every write is atomic."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_serializer, field_validator

from benchmark.errors import UserError
from benchmark.plan.stage import Network, Output
from benchmark.plan.task import Config


class StoreError(UserError):
    """A folder cannot be written or a file cannot be read; the message says which, why, and what to do."""


class Record(Config):
    """One stage, worked once, as measured. Joules are NaN (null on disk) with a `reason` where no meter could tell.

    `joules` are useful ones; `repeated_joules` were spent on epochs that were lost and worked again. A record with
    `repeat=True` is the whole stage worked again (its artifact was lost): everything in it counts as repeated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    version: int = 1
    key: str
    fn: str
    fn_version: int
    params: dict[str, Any]
    inputs: dict[str, str]
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


class Store:
    """The two folders of a study: `results` (facts, committed) and `artifacts` (disposable)."""

    def __init__(self, results: Path, artifacts: Path) -> None:
        self.results = results
        self.artifacts = artifacts

    def check_writable(self) -> None:
        """Raise StoreError before any work where a folder cannot take a file or the disk is all but full."""
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

    # --- records ---------------------------------------------------------------------------------------------------

    def record(self, machine: str, key: str) -> Record | None:
        """The first record of a stage on a machine, or None."""
        path = self.results / "records" / machine / f"{key}.json"
        return read_record(path) if path.is_file() else None

    def records(self) -> Iterator[Record]:
        """Every record, in a stable order. Raises StoreError at a file that is none."""
        for path in self.record_paths():
            yield read_record(path)

    def record_paths(self) -> list[Path]:
        """The files of all records."""
        return sorted((self.results / "records").glob("*/*.json"))

    def add(self, record: Record, samples: bytes = b"") -> Record:
        """Keep a record for good, sealed by its digest: as the stage's own if it is the first, else beside it as a
        repeat.

        The meter's raw `samples` (gzipped CSV) lie beside it. Returns what was kept.
        """
        folder = self.results / "records" / record.machine
        first = _sealed(record)
        if not record.group and _create(folder / f"{record.key}.json", _dump(first)):
            return self._with_samples(first, samples, folder / record.key)
        repeat = first if record.group else _sealed(record.model_copy(update={"repeat": True}))
        name = f"{record.key}.{uuid.uuid4().hex[:8]}"
        if not _create(folder / f"{name}.json", _dump(repeat)):
            raise StoreError(f"two records drew the same name under {folder}: run again")
        return self._with_samples(repeat, samples, folder / name)

    def _with_samples(self, record: Record, samples: bytes, stem: Path) -> Record:
        if samples:
            replace(stem.parent / f"{stem.name}.samples.csv.gz", samples)
        return record

    def measurements(self, machine: str, key: str) -> list[Record]:
        """All records of a measurement that may be repeated (one file each), oldest first."""
        found = [read_record(path) for path in sorted((self.results / "records" / machine).glob(f"{key}.*.json"))]
        return sorted((record for record in found if record.group), key=lambda record: record.created)

    # --- attempts: what an unfinished stage has spent --------------------------------------------------------------

    def attempts(self, machine: str, key: str) -> list[dict[str, Any]]:
        """The journals of works on a stage that did not finish."""
        return [_read_json(path) for path in sorted((self.results / "attempts" / machine).glob(f"{key}-*.json"))]

    def write_attempt(self, machine: str, key: str, attempt: Mapping[str, Any]) -> None:
        """Write or replace the journal of one attempt, named by its `id`."""
        path = self.results / "attempts" / machine / f"{key}-{attempt['id']}.json"
        replace(path, json.dumps(attempt).encode(), durable=False)  # every few seconds: must not wait for the disk

    def clear_attempts(self, machine: str, key: str) -> None:
        """Drop a stage's journals once its record holds their sums."""
        for path in (self.results / "attempts" / machine).glob(f"{key}-*.json"):
            path.unlink(missing_ok=True)

    # --- runs ------------------------------------------------------------------------------------------------------

    def add_run(self, machine: str, name: str, run: Mapping[str, Any]) -> None:
        """Remember that an experiment was asked for; the same run twice is one file."""
        _create(self.results / "runs" / machine / f"{name}.json", json.dumps(run, indent=1).encode())

    def runs(self) -> list[dict[str, Any]]:
        """Every experiment that was ever asked for."""
        return [_read_json(path) for path in sorted((self.results / "runs").glob("*/*.json"))]

    # --- devices: what probing found ------------------------------------------------------------------------------

    def add_device(self, machine: str, facts: Mapping[str, Any]) -> Path:
        """Keep what a probe found, under its `id`, for good; returns the file."""
        path = self.results / "devices" / machine / f"{facts['id']}.json"
        _create(path, json.dumps(facts, indent=1, allow_nan=False).encode())
        return path

    def device(self, board: str, driver: str) -> dict[str, Any] | None:
        """The newest probe of a board (its UUID) under this driver, or None: another driver may show other meters."""
        found = [_read_json(path) for path in sorted((self.results / "devices").glob("*/*.json"))]
        own = [facts for facts in found if (facts["device"]["uuid"], facts["device"]["driver"]) == (board, driver)]
        return max(own, key=lambda facts: str(facts["created"]), default=None)

    # --- artifacts -------------------------------------------------------------------------------------------------

    def has_output(self, key: str) -> bool:
        """Whether the stage's artifact is here."""
        return self._artifact(key).is_file()

    def save_output(self, key: str, output: Output) -> None:
        """Keep what a stage hands on: one safetensors file, its JSON in the header."""
        from safetensors.torch import save  # here: planning and reports must not pay for torch

        network = output.network
        tensors = {f"network.{name}": tensor for name, tensor in (network.tensors if network else {}).items()}
        tensors |= {f"array.{name}": tensor for name, tensor in (output.arrays or {}).items()}
        header = {
            "network": network and {name: value for name, value in vars(network).items() if name != "tensors"},
            "values": dict(output.values),
            "details": dict(output.details),
        }
        replace(self._artifact(key), save(tensors, {"output": json.dumps(header)}))

    def load_output(self, key: str) -> Output:
        """What a stage handed on. Raises StoreError where the file is damaged."""
        from safetensors import SafetensorError, safe_open

        path = self._artifact(key)
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["output"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StoreError(f"artifact {path} is damaged ({error}): delete it and run again") from error
        network = header["network"]
        if network is not None:
            own = {name.removeprefix("network."): value for name, value in tensors.items() if name[:8] == "network."}
            network = Network(
                **{**network, "mean": tuple(network["mean"]), "std": tuple(network["std"]), "tensors": own}
            )
        arrays = {name.removeprefix("array."): value for name, value in tensors.items() if name[:6] == "array."}
        return Output(network=network, arrays=arrays or None, values=header["values"], details=header["details"])

    def checkpoint_path(self, key: str, board: str) -> Path:
        """Where an unfinished stage keeps its state on one board: joules of two boards must not meet in one record."""
        return self.artifacts / f"{key}.{hashlib.sha256(board.encode()).hexdigest()[:8]}.checkpoint"

    def _artifact(self, key: str) -> Path:
        return self.artifacts / f"{key}.safetensors"

    @contextlib.contextmanager
    def working_on(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a stage for this process; `waiting` is called once where another process has it. The lock dies with
        its holder."""
        path = self.artifacts / f"{key}.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def read_record(path: Path) -> Record:
    """A record from its file. Raises StoreError where the file is no record."""
    try:
        return Record.model_validate(_read_json(path))
    except ValidationError as error:
        finding = error.errors()[0]
        raise StoreError(f"{path} is no record: {'.'.join(map(str, finding['loc']))}: {finding['msg']}") from error


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a record's JSON (without its own `digest`), whatever the order and layout of the file."""
    sealed = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, allow_nan=False).encode()).hexdigest()


def fault_of_seal(path: Path) -> str:
    """What is wrong with the digest of a record's file; empty where it is as it was written. Raises StoreError."""
    content = _read_json(path)
    if not content.get("digest"):
        return "has no digest: whether it was edited by hand cannot be told"
    return "" if content["digest"] == digest(content) else "was edited by hand: its digest does not fit its content"


def _sealed(record: Record) -> Record:
    return record.model_copy(update={"digest": digest(json.loads(_dump(record)))})


def _dump(record: Record) -> bytes:
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False).encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}; restore it, or remove it to measure again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds no JSON object; restore it, or remove it to measure again")
    return value


def replace(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, in place of an older one; `durable` waits until it lies on the disk.

    Raises StoreError.
    """
    try:
        os.replace(_write_beside(path, content, durable), path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _create(path: Path, content: bytes) -> bool:
    """Write a new file whole or not at all; False where the name is taken, also by a process that was quicker."""
    try:
        beside = _write_beside(path, content)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return True


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
