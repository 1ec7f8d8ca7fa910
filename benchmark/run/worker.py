"""Runs stages on one device, each in one window, with one record each. The only place that opens a stage's window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, cast

from benchmark.energy import DeviceError, EnergyTracer, Options, Reading
from benchmark.energy.judge.reading import is_estimate
from benchmark.energy.timeline.sampler import PERIOD_S
from benchmark.errors import UserError
from benchmark.plan.deployment import Measurement, asked
from benchmark.plan.life import Life
from benchmark.plan.stage import Output, Phase, Stage
from benchmark.plan.task import Task
from benchmark.records.artifacts import Stored
from benchmark.records.files import StoreError, plain
from benchmark.records.provenance import now, outside, provenance, why_unknown
from benchmark.records.record import Record
from benchmark.run.account import Account
from benchmark.run.agenda import Pending
from benchmark.run.process import costly_settings, ready, resolve, words
from benchmark.run.progress import Progress
from benchmark.run.state import edited
from benchmark.run.turn import Turn
from benchmark.run.workbench import MEASURING, Site, Under, Workbench
from benchmark.vision.builders import trust


class StageError(UserError):
    """A stage failed or may not run here; the message names it and its cause. What was spent on it is kept in its
    account. `failures` are the words of all, where it stands for several."""

    def __init__(self, words: str, failures: Sequence[str] = ()) -> None:
        super().__init__(words)
        self.failures = list(failures)


class StageBusy(UserError):
    """Another process runs the stage, or some measurements of a group (`keys`); the message names it."""

    def __init__(self, words: str, keys: Sequence[str] = ()) -> None:
        super().__init__(words)
        self.keys = list(keys)


class Given(NamedTuple):
    """What a stage is given: another's output, and the SHA-256 of the artifact it came from."""

    output: Output
    artifact: str


@dataclass
class Worker:
    """Runs stages on one device. Within `with` it keeps one energy tracer, and may hold the device's lock.

    `say` gets a line for everything a user should know.
    """

    site: Site
    say: Callable[[str], None]
    _tracer: EnergyTracer | None = field(default=None, init=False)
    _turn: Turn = field(init=False)
    _waited: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._turn = Turn(self.site.device, self.say)

    def __enter__(self) -> Worker:
        self.site.store.check_writable()
        self._turn.prove()  # now, and not after a day of training
        self._provenance = provenance()  # now: the code on disk may change while a long study runs
        if self._provenance["commit"] == "unknown":
            why = why_unknown()
            self.say(f"note: check will call every record of this run a fault, because its commit is unknown: {why}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None
        self._turn.end()

    # --- stages ----------------------------------------------------------------------------------------------------

    def ensure(self, life: Life, phase: Phase, stage: Stage, wait: bool = True) -> Record:
        """The record of a stage, which runs if it has none. Raises StageError, or StoreError where nothing can be kept;
        without `wait` StageBusy where another process runs it."""
        key, machine = life.key(stage), life.machine(phase)
        record = self.recorded(life, phase, stage)
        if record is not None:
            self.say(f"{phase:<8} {stage.name} {key}: recorded{edited(stage, record)}")
            return record
        self._may_work(life, stage)
        self._turn.take()
        _trust(life)
        with self._held(stage, key, wait):
            record = self.site.store.record(machine, key, stage.fn)
            if record is not None:  # another process finished it meanwhile
                return record
            self._work(life, stage)
        record = self.site.store.record(machine, key, stage.fn)
        if record is None:
            raise StoreError(f"the record of {stage.name} {key} vanished during the run: was it removed? Run again")
        return record

    def recorded(self, life: Life, phase: Phase, stage: Stage) -> Record | None:
        """The record of a stage, if it is there; what a killed process left beside it is removed."""
        record = self.site.store.record(life.machine(phase), life.key(stage), stage.fn)
        if record is not None:
            self._clean(stage, record)
        return record

    def waits_for(self, whom: str) -> None:
        """Say for whom this process waits, once."""
        if whom not in self._waited:
            self._waited.add(whom)
            self.say(f"{whom}: going on with other stages, or waiting for it")

    def _clean(self, stage: Stage, record: Record) -> None:
        """Remove what a process left that was killed between this record and its own clean-up."""
        store, ids = self.site.store, set(map(str, record.provenance.get("attempt_ids", ())))
        left = [path.stem.removeprefix(f"{record.key}-") for path in store.attempt_paths(record.machine, record.key)]
        if ids.intersection(left):
            with self._held(stage, record.key), contextlib.suppress(OSError):
                self.site.checkpoint(record.key).unlink(missing_ok=True)
                store.clear_attempts(record.machine, record.key, ids)

    def obtain(self, life: Life, stage: Stage) -> Given:
        """The output of a stage: from its artifact, or from another run of the stage if no valid copy is left."""
        key, store = life.key(stage), self.site.store
        _trust(life)
        with self._held(stage, key):
            try:
                found = store.outputs.load(key, store.copies(life.machine(life.phase(stage)), key))
            except StoreError as error:
                self.say(str(error))
                found = None
            if found is not None:
                return Given(found[0], found[1].sha256)
            for path in store.outputs.copies(key):
                self.say(f"artifact {path} is not taken: no record of its stage here vouches for it")
            self._may_work(life, stage)
            self.say(f"the artifact of {stage.name} {key} is lost: the stage runs again and is booked as repeated")
            return self._work(life, stage)

    def _may_work(self, life: Life, stage: Stage) -> None:
        """Refuse to run a stage here whose records must come from another machine."""
        machine, here = life.machine(life.phase(stage)), self.site.device.machine
        if machine != here:
            raise StageError(
                f"{stage.name} {life.key(stage)} belongs to {machine}, and this machine is {here}: "
                "run it there, and copy its results/ and artifacts/ here"
            )

    def _held(self, stage: Stage, key: str, wait: bool = True) -> contextlib.AbstractContextManager[None]:
        """Hold a stage. While another process has it: wait, told once, or raise StageBusy."""
        told: list[str] = []

        def busy(who: str) -> None:
            if not wait:
                raise StageBusy(f"{who} runs {stage.name} {key}")
            if not told:
                told.append(who)
                self.say(f"{who} runs {stage.name} {key}: waiting for it")

        return self.site.store.outputs.working_on(key, busy)

    def _work(self, life: Life, stage: Stage) -> Given:
        """Call the stage's function in its window; keep the artifact first, then the record."""
        key, phase, store = life.key(stage), life.phase(stage), self.site.store
        inputs = {name: self.obtain(life, needed) for name, needed in stage.inputs.items()}
        bench, progress = self._bench(f"{phase:<8} {stage.name} {_network_of(life, stage)} {key[:8]}", key)
        try:
            function = resolve(stage.fn)
            with self._turn.alone(), bench.metered():
                output = function(bench, stage.params, **{name: given.output for name, given in inputs.items()})
            account = bench.account()
            stored = store.outputs.save(key, output)
        except BaseException as error:
            self._stopped(bench, progress, error, "its account keeps what was spent: {}")
            if not isinstance(error, Exception) or isinstance(error, StoreError):
                raise
            raise StageError(f"{stage.name} {key} failed: {words(error)}") from error
        made = _Made(output, account, stored, {name: given.artifact for name, given in inputs.items()}, bench.ids)
        try:
            record = store.add(self._record(stage, life, made), _samples(bench.reading))
        except BaseException:
            bench.close()  # what was spent stays known until a record can be kept
            raise
        bench.forget()
        progress.close(self._done(record))
        return Given(output, stored.sha256)

    # --- inference -------------------------------------------------------------------------------------------------

    def measure(self, group: Mapping[str, Pending], again: bool = False) -> float:
        """Measure some engines together, their windows taking turns, a record each by its key; returns the joules spent
        on it.

        An engine that cannot be had or loaded is left out. What another process measured meanwhile is not measured
        `again` unasked. What an early end leaves unmeasured is measured by the next run. Raises StageError, with what
        was left out and why; StageBusy with the keys that another process measures, once the others are done.
        """
        self._turn.take()
        busy: dict[str, str] = {}
        with contextlib.ExitStack() as held:
            mine = {}
            for key, pending in group.items():
                try:
                    held.enter_context(self._held(pending.stage, key, wait=False))
                except StageBusy as error:
                    busy[key] = str(error)
                    continue
                if again or not self.site.store.measurements(pending.life.place.infer_machine, key):
                    mine[key] = pending
            joules = self._measure(mine) if mine else 0.0
        if busy:
            raise StageBusy("; ".join(dict.fromkeys(busy.values())), list(busy))
        return joules

    def _measure(self, group: Mapping[str, Pending]) -> float:
        from benchmark.deploy.measure import measure_group  # here: torch

        bench, progress = self._bench(f"{Phase.INFER:<8} {len(group)} network shape(s)", MEASURING)
        name, left_out = f"{now()}/{next(iter(group))[:6]}", {}
        ready_ones: dict[str, _Measured] = {}
        for key, pending in group.items():
            try:
                ready_ones[key] = self._subject(bench, pending)
            except StageError as error:
                left_out[key] = str(error)
        if not ready_ones:
            progress.close("none of them can be measured")
            raise StageError("; ".join(left_out.values()))
        try:
            with self._turn.alone(), bench.metered():
                outputs = measure_group(bench, {key: each.subject for key, each in ready_ones.items()})
        except BaseException as error:
            self._stopped(bench, progress, error, "{} spent on measuring are booked by the next measurement")
            if not isinstance(error, Exception):
                raise
            raise StageError(f"the inference measurement failed: {words(error)}") from error
        try:
            self._keep(name, {key: (ready_ones[key], output) for key, output in outputs.items()}, bench)
        except BaseException:
            bench.close()
            raise
        bench.forget()
        progress.close(f"done, {self._wh(bench.spent_joules)} spent on measuring")
        if left_out:
            raise StageError("; ".join(left_out.values()))
        return bench.spent_joules

    def _subject(self, bench: Workbench, pending: Pending) -> _Measured:
        """An engine, loaded and ready to be measured. Raises StageError."""
        from benchmark.deploy.measure import subject  # here: torch

        life, stage = pending
        self._may_work(life, stage)
        given = self.obtain(life, life.build)
        try:
            return _Measured(pending, given, subject(bench, cast(Measurement, stage.params), given.output))
        except Exception as error:
            raise StageError(f"the engine {life.key(life.build)} cannot be loaded: {words(error)}") from error

    def _keep(self, name: str, measured: Mapping[str, tuple[_Measured, Output]], bench: Workbench) -> None:
        """A record for each measurement of a group. Beside the first lie the readings of all, and on it is booked what
        interrupted measurements spent."""
        samples, (repeated, why) = _samples(bench.reading), bench.repeated()
        for each, output in measured.values():
            life, stage = each.pending
            account = Account.of_windows(output.details["account"])
            if why or repeated:
                reason = "; ".join(filter(None, (account.reason, why)))
                account = account._replace(repeated_joules=repeated, reason=reason)
                repeated, why = 0.0, ""
            kept = {part: value for part, value in output.details.items() if part != "account"}
            # the one engine, of all with this signature, that was measured; and by what rows will find it
            kept["engine_key"] = life.key(life.build)
            kept["engine_version"] = life.place.engine_version
            kept["measurement"] = asked(cast(Measurement, stage.params))
            kept["measured_before"] = self.site.store.measured_before(self.site.device.machine, life.key(stage))
            inputs = {"engine": each.given.artifact}
            made = _Made(Output(values=output.values, details=kept), account, Stored("", 0), inputs, bench.ids)
            record = self._record(stage, life, made)
            self.site.store.add(record.model_copy(update={"group": name}), samples)
            samples = b""  # one window around the group

    # --- what both need --------------------------------------------------------------------------------------------

    def _bench(self, title: str, key: str) -> tuple[Workbench, Progress]:
        device = self.site.device
        if self._tracer is None:
            options = Options(probed=self._probed(), period_s=self.site.sample_s or PERIOD_S)
            wait = ready(device)
            try:
                self._tracer = EnergyTracer(device, synchronize=wait, cpu_tdp_w=self.site.cpu_tdp_w, options=options)
            except ValueError as error:
                raise DeviceError(f"{device.name} cannot be measured: {error} (hardware.cpu_tdp_w)") from error
        if self._tracer.disabled:
            raise DeviceError(f"no energy would be measured: {self._tracer.disabled}; unset LOCAL_RANK to run here")
        versions = self._provenance["versions"]
        under = Under(self._provenance["commit"], str(versions.get("torch")), device.driver)
        progress = Progress(title, estimated=is_estimate(device.source))
        return Workbench(self.site, key, self._tracer, progress, under), progress

    def _stopped(self, bench: Workbench, progress: Progress, error: BaseException, kept: str) -> None:
        """End an attempt early, and say what becomes of the energy that it spent."""
        trouble = bench.close(f"the work raised {words(error)}")
        spent = kept.format(self._wh(bench.spent_joules)) if bench.begun else "nothing was spent on it yet"
        again = "" if bench.resumable or isinstance(error, Exception) else "; no checkpoint yet, so it begins again"
        progress.close(f"stopped ({words(error)}{again}); {trouble or spent}")

    def _probed(self) -> dict[str, dict[str, Any]]:
        """What the newest probe found out about this board, by its UUID."""
        device = self.site.device
        facts = self.site.store.device(device.uuid, device.driver)
        if facts is None and device.kind == "cuda":
            self.say("note: this board was not probed under this driver: python -m benchmark device --probe does it")
        return {} if facts is None else {device.uuid: facts}

    def _record(self, stage: Stage, life: Life, made: _Made) -> Record:
        device = self.site.device
        board: dict[str, Any] = {
            "device_uuid": device.uuid,
            "driver": device.driver,
            "power_limit_w": device.power_limit_w,
            "threads": device.threads,
            "environment": costly_settings(),
        }
        return Record(
            key=life.key(stage),
            fn=stage.fn,
            fn_version=stage.params.version,
            params=stage.params.model_dump(mode="json"),
            inputs={name: life.key(needed) for name, needed in stage.inputs.items()},
            artifact=made.stored.sha256,
            artifact_bytes=made.stored.size,
            input_artifacts=made.given,
            **made.account.fields(),
            values=dict(made.output.values),
            details=plain(made.output.details),
            provenance={**self._provenance, **board, **outside(stage.fn), "attempt_ids": made.attempts},
            device_name=device.name,
            machine=device.machine,
            commit=self._provenance["commit"],
            created=now(),
        )

    def _done(self, record: Record) -> str:
        shown = [f"{self._wh(record.joules)} in {record.seconds:.1f} s ({record.source}, grade {record.grade})"]
        shown.append(f"accuracy {record.values['acc_pct']:.2f} %" if "acc_pct" in record.values else "")
        shown.append(f"{self._wh(record.repeated_joules)} repeated" if record.repeated_joules else "")
        return "done: " + ", ".join(filter(None, (*shown, record.reason)))

    def _wh(self, joules: float) -> str:
        about = "~" if is_estimate(self.site.device.source) else ""
        return f"{about}{joules / 3600:.4g} W.h" if joules == joules else "an unknown amount of energy"


class _Measured(NamedTuple):
    """An engine under measurement: what is pending, where the engine came from, and the loaded subject."""

    pending: Pending
    given: Given
    subject: Any


class _Made(NamedTuple):
    """What came of running a stage: its output, its cost, its artifact, the artifacts it was given, by input, and the
    attempts that its cost accounts for."""

    output: Output
    account: Account
    stored: Stored
    given: dict[str, str]
    attempts: list[str]


def _network_of(life: Life, stage: Stage) -> str:
    """The name of the network that a stage is about: a teacher's stage is not about the model of the life."""
    task: Task = getattr(stage.params, "task", life.task)
    return task.model.name


def _trust(life: Life) -> None:
    """Let artifacts of this life name the builders that its command names, and no others of their own."""
    trust(*(model.builder for model in (life.task.model, life.task.teacher) if model is not None))


def _samples(reading: Reading) -> bytes:
    """The raw readings worth keeping beside a record: those of a meter. An estimate has none."""
    return b"" if is_estimate(reading.source) or not reading.raw else reading.samples_csv_gz(thin=True)
