"""All records of a results folder, read once, beside every life that was asked for. Knows no method, plans nothing."""

from __future__ import annotations

import contextlib
import gc
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.plan.run_file import RunFile, RunStage
from benchmark.plan.stage import Phase
from benchmark.records.files import StoreError, Unreadable
from benchmark.records.proven import Proven, proven
from benchmark.records.record import Record, sealed, sound_record
from benchmark.records.store import Store, read_run

Where = tuple[str, str]
"""A machine and a key, or a machine and a signature."""


@dataclass
class Book:
    """Runs and records by where they lie. `left_out` holds the files that say nothing that can be, each with why;
    `results` is the folder that was read.
    """

    runs: list[RunFile] = field(default_factory=list)
    firsts: dict[Where, Record] = field(default_factory=dict)
    repeats: dict[Where, list[Record]] = field(default_factory=dict)
    measured: dict[Where, list[Record]] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    results: Path | None = None

    @classmethod
    def read(cls, store: Store) -> Book:
        """Read a results folder; what is no record, no run, or cannot be, is left out and named in `left_out`."""
        with _without_collections():
            return cls._read(store)

    @classmethod
    def _read(cls, store: Store) -> Book:
        book = cls(results=store.results)
        # a stage's own record before its repeats: of two that say the same, the first counts
        paths = sorted(store.record_paths(), key=lambda path: (str(path.parent), path.name.count("."), path.name))
        with proven(store.artifacts, paths) as known:
            book._read_records(paths, known)
        book._read_runs(store)
        return book

    def _read_records(self, paths: Sequence[Path], known: Proven | None) -> None:
        counted = _Counted()
        for path in paths:
            try:
                record = sound_record(path) if known is None else known.record(path)
                counted.once(path, record)
            except StoreError as error:
                self.left_out.append((path, str(error)))
                continue
            where = (record.machine, record.key)
            if record.repeat:
                self.repeats.setdefault(where, []).append(record)
            elif record.group is None:
                self.firsts[where] = record
            else:
                signature = str(record.params.get("signature"))
                self.measured.setdefault((record.machine, signature), []).append(record)

    def _read_runs(self, store: Store) -> None:
        found = []
        for path in store.run_paths():
            try:
                found.append((path, read_run(path)))
            except StoreError as error:
                self.left_out.append((path, str(error)))
        # seed 0 alone can be proved by the digest of its plan; the other seeds of that plan are of its shape
        proved = {run.plan: run.shape for _, run in found if run.seed == 0}
        for path, run in found:
            if run.shape == proved.get(run.plan, run.shape):
                self.runs.append(run)
            else:
                why = f"{path} has other stages than seed 0 of its plan; remove it, and run again what it was for"
                self.left_out.append((path, why))

    @property
    def unreadable(self) -> list[str]:
        """A line for each file that was left out."""
        return [why for _, why in self.left_out]

    def samples(self, machine: str, key: str) -> Path | None:
        """The file of the meter's raw readings beside a stage's own record, or beside the only measurement under that
        key; None where nothing was kept.
        """
        if self.results is None:
            return None
        folder = self.results / "records" / machine
        own = folder / f"{key}.samples.csv.gz"
        if own.is_file():
            return own
        beside = sorted(folder.glob(f"{glob.escape(key)}.*.samples.csv.gz"))
        return beside[0] if len(beside) == 1 and beside[0].is_file() else None

    def booked(self) -> set[str]:
        """The ids of the attempts that records account for."""
        return {str(name) for record in self.records() for name in record.provenance.get("attempt_ids", ())}

    def records(self) -> Iterator[Record]:
        """Every sound record, repeats and measurements included."""
        for records in (self.firsts.values(), *self.repeats.values(), *self.measured.values()):
            yield from records

    def record(self, stage: RunStage) -> Record | None:
        """The record that counts for a stage of a run: one of another function says nothing of it."""
        found = self.firsts.get((stage.machine, stage.key))
        return found if found is not None and found.fn == stage.fn else None

    def engine(self, run: RunFile) -> Record | None:
        """The record of the run's engine."""
        return next((self.record(stage) for stage in run.stages if stage.phase is Phase.DEPLOY), None)

    def network(self, run: RunFile) -> Record | None:
        """The record of the stage whose network was deployed."""
        given = {stage.inputs.get("network") for stage in run.stages if stage.phase is Phase.DEPLOY}
        return next((self.record(stage) for stage in run.stages if stage.key in given), None)

    def inference(self, run: RunFile) -> Record | None:
        """The newest measurement of what the run's engine executes, found by what was measured and how."""
        built = self.engine(run)
        signature = None if built is None else built.details.get("signature")
        if signature is None:
            return None
        wanted = {"measurement": run.measurement, "engine_version": run.words.engine_version}
        found = [
            record
            for record in self.measured.get((run.infer_machine, str(signature)), [])
            if wanted.items() <= {name: record.details.get(name) for name in wanted}.items()
        ]
        return max(found, key=_turn, default=None)

    def newest_measurements(self) -> dict[Where, Record]:
        """The newest measurement of each key, as rows have it: one that is taken again keeps its key."""
        found: dict[Where, Record] = {}
        for record in (each for records in self.measured.values() for each in records):
            before = found.get((record.machine, record.key))
            if before is None or _turn(record) > _turn(before):
                found[record.machine, record.key] = record
        return found

    def lost(self, run: RunFile) -> list[str]:
        """Stages without a record on which recorded ones rest: their records were there once."""
        recorded = [stage for stage in run.stages if self.record(stage) is not None]
        resting = {key: stage.name for stage in recorded for key in stage.inputs.values()}
        return [
            f"the record of {stage.name} {stage.key} on {stage.machine} is missing; {resting[stage.key]} "
            "rests on it: the same command runs it again, or bring the record back"
            for stage in run.stages
            if stage.key in resting and self.record(stage) is None
        ]

    def missing(self, run: RunFile) -> list[str]:
        """The names of the stages that have no record yet, inference included."""
        absent = [stage.name for stage in run.stages if self.record(stage) is None]
        return absent + ([] if self.inference(run) else ["inference"])

    def copies(self, run: RunFile) -> list[str]:
        """Where a chain mixes copies: stages that rest on another artifact than the one their input's record made."""
        by_key = {stage.key: stage for stage in run.stages}
        found = []
        for stage in run.stages:
            record = self.record(stage)
            for name, key in stage.inputs.items():
                needed = by_key.get(key)
                made = None if needed is None else self.record(needed)
                if record is None or needed is None or made is None:
                    continue
                if record.input_artifacts.get(name) != made.artifact:
                    found.append(f"{stage.name} rests on a second copy of {needed.name}, not on the one of its record")
        return found

    def repeated_joules(self, record: Record) -> float:
        """What was spent on a stage beyond its useful joules: lost epochs, and whole repeats."""
        again = self.repeats.get((record.machine, record.key), [])
        return record.repeated_joules + sum(each.joules + each.repeated_joules for each in again)

    def unreached(self) -> Iterator[Record]:
        """Records that no run reaches: no row shows them."""
        reached = {(stage.machine, stage.key) for run in self.runs for stage in run.stages}
        for where, record in self.firsts.items():
            if where not in reached:
                yield record
        shown = [self.inference(run) for run in self.runs]
        keys = {(record.machine, record.key) for record in shown if record is not None}
        for records in self.measured.values():
            yield from (record for record in records if (record.machine, record.key) not in keys)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector from walking, again and again, what is kept anyway: a quarter of the time of reading
    100,000 records."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Counted:
    """What was counted already, so that a file and its copy under another name do not count twice."""

    def __init__(self) -> None:
        self._seals: dict[str, Path] = {}
        self._attempts: dict[tuple[str, str, str], Path] = {}

    def once(self, path: Path, record: Record) -> None:
        """Note a record. Raises Unreadable where it, or an attempt that it accounts for, was counted before."""
        seal = record.digest or sealed(record).digest
        # the measurements of a group share one attempt: only records of the same stage exclude each other
        attempts = [(record.machine, record.key, str(name)) for name in record.provenance.get("attempt_ids", ())]
        before = self._seals.get(seal) or next(filter(None, map(self._attempts.get, attempts)), None)
        if before is not None:
            raise Unreadable(f"{path} counts again what {before.name} counts already: a copy? Remove one of them")
        self._seals[seal] = path
        self._attempts |= dict.fromkeys(attempts, path)


def _turn(record: Record) -> tuple[int, str]:
    """Which of several measurements of one engine is the newest: by how many came before it, and only then by the
    clock, which may have been set back."""
    before = record.details.get("measured_before")
    return (before if isinstance(before, int) else 0), record.created
