"""Walks life cycles: each stage once, in one energy window, one record each. The only place that opens a stage's
window."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmark.energy import Device, DeviceBusy, DeviceLock, EnergyTracer, Options, Reading
from benchmark.errors import UserError
from benchmark.plan.config import ConfigError
from benchmark.plan.deployment import Measurement
from benchmark.plan.life import Life
from benchmark.plan.stage import Output, Phase, Stage
from benchmark.records.provenance import now, provenance
from benchmark.records.store import Record, Store, StoreError
from benchmark.run.process import forget, ready, terminable, words
from benchmark.run.progress import Progress
from benchmark.run.workbench import Account, Site, Workbench
from benchmark.vision.builders import trust

GROUP = 8
"""Networks whose measurements take turns. More would hold more of them on the device, and lose more when
interrupted."""

DAY_S = 86_400.0


class StageError(UserError):
    """A stage failed; the message names it and its cause. What was spent on it is kept in its account."""


@dataclass
class Runner:
    """Works what is missing. `say` gets a line for everything a user should know."""

    store: Store
    device: Device
    data_dir: Path
    say: Callable[[str], None]
    cpu_tdp_w: float | None = None
    _tracer: EnergyTracer | None = field(default=None, init=False)
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _has_board: bool = field(default=False, init=False)

    def run(self, wanted: Sequence[Life], measure_again: bool = False) -> None:
        """Bring every life cycle to its rows: train, compress, deploy; then measure all inferences in groups.

        Raises StageError, StoreError, DeviceError or ConfigError; everything measured until then is kept.
        """
        self.store.check_writable()
        self._provenance = provenance()  # now: the code on disk may change while a long study runs
        trust(*(model.builder for life in wanted for model in (life.task.model, life.task.teacher) if model))
        for life in wanted:
            self.store.add_run(life.place.infer_machine, *life.run_file())
        with terminable():
            try:
                failed = self._work_all(wanted)
                alive = [life for number, life in enumerate(wanted) if number not in failed]
                failed |= self._measure(alive, measure_again)
            finally:
                self._release()
        if failed:
            raise StageError("; ".join(dict.fromkeys(failed.values())))

    # --- stages ----------------------------------------------------------------------------------------------------

    def _work_all(self, wanted: Sequence[Life]) -> dict[int, str]:
        """Work the stages of every life; a stage that fails ends its own life cycle and no other. Returns what
        failed."""
        failed: dict[int, str] = {}
        for number, life in enumerate(wanted):
            try:
                for phase, stage in life.steps():
                    self._ensure(life, phase, stage)
            except StageError as error:
                failed[number] = str(error)  # the words alone: the error itself would hold the stage's tensors
            if number in failed:
                forget()
        return failed

    def _ensure(self, life: Life, phase: Phase, stage: Stage) -> None:
        """Work a stage unless its record is there."""
        key, machine = life.key(stage), life.machine(phase)
        if self.store.record(machine, key) is not None:
            self.say(f"{phase:<8} {stage.name} {key}: recorded")
            return
        self._may_work(life, stage)
        self._take_board()
        with self._held(stage, key):
            if self.store.record(machine, key) is None:  # another process may have finished it meanwhile
                self._work(life, stage)

    def _obtain(self, life: Life, stage: Stage) -> Output:
        """What a stage hands on: from its artifact, or worked again where the artifact is lost."""
        key = life.key(stage)
        with self._held(stage, key):
            if self.store.has_output(key):
                try:
                    return self.store.load_output(key)
                except StoreError as error:
                    self.say(f"{error}")
            self._may_work(life, stage)
            self.say(f"the artifact of {stage.name} {key} is lost: it is worked again and booked as repeated")
            return self._work(life, stage)

    def _may_work(self, life: Life, stage: Stage) -> None:
        """Refuse to work a stage here whose records are to come from other hardware."""
        machine = life.machine(life.phase(stage))
        if machine != self.device.machine:
            raise ConfigError(
                f"{stage.name} {life.key(stage)} belongs to {machine}, and this machine is {self.device.machine}: "
                "run it there, and copy its results/ and artifacts/ here"
            )

    def _held(self, stage: Stage, key: str) -> contextlib.AbstractContextManager[None]:
        return self.store.working_on(
            key, lambda: self.say(f"another process works on {stage.name} {key}: waiting for it")
        )

    def _work(self, life: Life, stage: Stage) -> Output:
        """Call the stage's function in its window; keep the artifact first, then the record."""
        key, phase = life.key(stage), life.phase(stage)
        inputs = {name: self._obtain(life, needed) for name, needed in stage.inputs.items()}
        bench, progress = self._bench(f"{phase:<8} {stage.name} {life.task.model.name} {key[:8]}", key)
        try:
            function = _resolve(stage.fn)
            with bench.metered():
                output = function(bench, stage.params, **inputs)
            account = bench.account()
            if output.network is not None or output.arrays:
                self.store.save_output(key, output)
        except BaseException as error:
            bench.close()
            progress.close(
                f"stopped ({words(error)}); {self._wh(bench.spent_joules)} spent on it are kept in its account"
            )
            if isinstance(error, Exception) and not isinstance(error, StoreError):
                raise StageError(f"{stage.name} {key} failed: {words(error)}") from error
            raise
        record = self.store.add(self._record(stage, life, output, account), _samples(bench.reading))
        self.store.checkpoint_path(key, self.device.uuid).unlink(missing_ok=True)
        self.store.clear_attempts(self.device.machine, key)
        progress.close(self._done(record))
        return output

    # --- inference -------------------------------------------------------------------------------------------------

    def _measure(self, wanted: Sequence[Life], again: bool) -> dict[int, str]:
        """Measure the inference of every network shape that has no measurement yet, in groups whose windows take
        turns."""
        pending: dict[str, tuple[Life, Stage]] = {}
        for life in wanted:
            built = self.store.record(life.place.infer_machine, life.key(life.build))
            if built is None:
                raise StoreError(
                    f"the record of engine {life.key(life.build)} vanished while its network was worked on"
                )
            stage = life.measurement(built.details["signature"])
            key = life.key(stage)
            if again or not self.store.measurements(life.place.infer_machine, key):
                pending.setdefault(key, (life, stage))
            else:
                self.say(f"{Phase.INFER:<8} {stage.name} {key}: recorded")
        keys, failed = list(pending), {}
        for number in range(0, len(keys), GROUP):
            group = {key: pending[key] for key in keys[number : number + GROUP]}
            try:
                self._measure_group(group)
            except StageError as error:
                failed[-1 - number] = str(error)
        return failed

    def _measure_group(self, group: dict[str, tuple[Life, Stage]]) -> None:
        """Measure some networks together, a record each; what an early end leaves unmeasured is measured by the next
        run."""
        from benchmark.deploy.measure import measure_group, subject  # here: torch

        for life, stage in group.values():
            if life.place.infer_machine != self.device.machine:
                raise ConfigError(
                    f"{stage.name} belongs to {life.place.infer_machine}, this machine is {self.device.machine}"
                )
        self._take_board()
        networks = {key: self._obtain(life, life.plan.network).network for key, (life, _) in group.items()}
        name = f"{now()}/{next(iter(group))[:6]}"
        bench, progress = self._bench(f"{Phase.INFER:<8} {len(group)} network shape(s)", "measurement")
        try:
            subjects = {}
            for key, (life, stage) in group.items():
                network = networks[key]
                assert network is not None, "an engine was built of it"
                params = cast(Measurement, stage.params)
                subjects[key] = subject(network, params, life.task, self.data_dir, self.device.torch_name)
            with bench.metered():
                outputs = measure_group(bench, subjects)
        except BaseException as error:
            bench.close()
            progress.close(f"stopped ({words(error)}); {self._wh(bench.spent_joules)} were spent on measuring")
            if isinstance(error, Exception):
                raise StageError(f"the inference measurement failed: {words(error)}") from error
            raise
        samples = _samples(bench.reading)
        for key, (life, stage) in group.items():
            output = outputs[key]
            account = Account.of_windows(output.details["account"])
            kept = {part: value for part, value in output.details.items() if part != "account"}
            record = self._record(stage, life, Output(values=output.values, details=kept), account)
            self.store.add(record.model_copy(update={"group": name}), samples)
            samples = b""  # one window around the group: its readings lie beside the first of its records
        self.store.clear_attempts(self.device.machine, "measurement")
        progress.close(f"done, {self._wh(bench.spent_joules)} spent on measuring")

    # --- what both need --------------------------------------------------------------------------------------------

    def _bench(self, title: str, key: str) -> tuple[Workbench, Progress]:
        if self._tracer is None:
            options = Options(probed=self._probed())
            wait = ready(self.device)
            self._tracer = EnergyTracer(self.device, synchronize=wait, cpu_tdp_w=self.cpu_tdp_w, options=options)
        progress = Progress(title, estimated=self.device.source.startswith("estimate"))
        site = Site(self.device.torch_name, self.device.machine, self.device.uuid, self.data_dir, self.store)
        return Workbench(site, key, self._tracer, progress), progress

    def _take_board(self) -> None:
        """Have a GPU to ourselves until the end of the run: two jobs on one board would be billed for each other.

        Before any stage is held: a process that held a stage and waited for the board could wait for one that has the
        board and waits for the stage.
        """
        if self.device.kind != "cuda" or self._has_board:
            return
        lock = DeviceLock(self.device)
        try:
            lock.acquire()
        except DeviceBusy as busy:  # its words name the holder; wait, for a study may take a day
            self.say(f"{busy}: waiting for it")
            lock = DeviceLock(self.device, wait_s=DAY_S)
            lock.acquire()
        self._lock.callback(lock.release)
        self._has_board = True

    def _probed(self) -> dict[str, dict[str, Any]]:
        """What the newest probe found out about this board, by its UUID."""
        facts = self.store.device(self.device.uuid, self.device.driver)
        if facts is None and self.device.kind == "cuda":
            self.say("note: this board was not probed under this driver: python -m benchmark device --probe does it")
        return {} if facts is None else {self.device.uuid: facts}

    def _release(self) -> None:
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None
        self._lock.close()
        self._has_board = False

    def _record(self, stage: Stage, life: Life, output: Output, account: Account) -> Record:
        device: dict[str, Any] = {
            "device_uuid": self.device.uuid,
            "driver": self.device.driver,
            "power_limit_w": self.device.power_limit_w,
        }
        return Record(
            key=life.key(stage),
            fn=stage.fn,
            fn_version=stage.params.version,
            params=stage.params.model_dump(mode="json"),
            inputs={name: life.key(needed) for name, needed in stage.inputs.items()},
            **account.fields(),
            values=dict(output.values),
            details=dict(output.details),
            provenance={**self._provenance, **device},
            device_name=self.device.name,
            machine=self.device.machine,
            commit=self._provenance["commit"],
            created=now(),
        )

    def _done(self, record: Record) -> str:
        shown = [f"{self._wh(record.joules)} in {record.seconds:.1f} s ({record.source}, grade {record.grade})"]
        if "acc_pct" in record.values:
            shown.append(f"accuracy {record.values['acc_pct']:.2f} %")
        if record.repeated_joules:
            shown.append(f"{self._wh(record.repeated_joules)} repeated")
        if record.reason:
            shown.append(record.reason)
        return "done: " + ", ".join(shown)

    def _wh(self, joules: float) -> str:
        about = "~" if self.device.source.startswith("estimate") else ""
        return f"{about}{joules / 3600:.4g} W.h" if joules == joules else "an unknown amount of energy"


def _samples(reading: Reading) -> bytes:
    """The raw readings worth keeping beside a record: those of a meter. An estimate has none."""
    return b"" if reading.source.startswith("estimate") or not reading.raw else reading.samples_csv_gz(thin=True)


def _resolve(fn: str) -> Callable[..., Output]:
    """The stage function named `module:function`."""
    module, _, name = fn.partition(":")
    return cast(Callable[..., Output], getattr(importlib.import_module(module), name))
