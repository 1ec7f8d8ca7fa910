"""Walks life cycles: each stage once, in one energy window, one record each. The only place that opens a stage's
window."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from benchmark.config import ConfigError
from benchmark.deploy.plan import Measurement
from benchmark.energy import Device, EnergyTracer
from benchmark.life import Life
from benchmark.progress import Progress
from benchmark.provenance import commit, now, provenance
from benchmark.stage import Output, Phase, Stage
from benchmark.store import Record, Store, StoreError
from benchmark.workbench import Site, Spent, Workbench

if TYPE_CHECKING:
    from benchmark.energy import Reading

StageFunction = Callable[..., Output]


class StageError(Exception):
    """A stage failed; the message names it and its cause. What was spent on it is kept in its account."""


class Interrupted(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); treated like Ctrl-C."""


@dataclass
class Runner:
    """Works what is missing. `say` gets a line for everything a user should know."""

    store: Store
    device: Device
    data_dir: Path
    say: Callable[[str], None]
    cpu_tdp_w: float | None = None
    _tracer: EnergyTracer | None = field(default=None, init=False)

    def run(self, wanted: Sequence[Life], measure_again: bool = False) -> None:
        """Bring every life cycle to its rows: train, compress, deploy; then measure all inferences as one group.

        Raises StageError, StoreError or ConfigError; everything measured until then is kept.
        """
        self.store.check_writable()
        for life in wanted:
            self.store.add_run(life.place.infer_profile, *life.run_file())
        with _terminable():
            try:
                failed = self._work_all(wanted)
                self._measure([life for number, life in enumerate(wanted) if number not in failed], measure_again)
            finally:
                if self._tracer is not None:
                    self._tracer.close()
                    self._tracer = None
        if failed:
            raise StageError("; ".join(map(str, failed.values())))

    def _work_all(self, wanted: Sequence[Life]) -> dict[int, StageError]:
        """Work the stages of every life; a stage that fails ends its own life cycle and no other."""
        failed: dict[int, StageError] = {}
        for number, life in enumerate(wanted):
            try:
                for phase, stage in life.steps():
                    self._ensure(life, phase, stage)
            except StageError as error:
                failed[number] = error
        return failed

    def _ensure(self, life: Life, phase: Phase, stage: Stage) -> None:
        """Work a stage unless its record is there."""
        key, profile = life.key(stage), life.profile(phase)
        if self.store.record(profile, key) is not None:
            self.say(f"{phase:<8} {stage.name} {key}: recorded")
            return
        if profile != self.device.profile:
            raise ConfigError(
                f"no record of {stage.name} {key} on {profile}, and this machine is {self.device.profile}: "
                "run it there and copy its results/ and artifacts/ here"
            )
        with self._held(stage, key):
            if self.store.record(profile, key) is None:  # another process may have finished it meanwhile
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
            self.say(f"the artifact of {stage.name} {key} is lost: it is worked again and booked as repeated")
            return self._work(life, stage)

    def _held(self, stage: Stage, key: str) -> contextlib.AbstractContextManager[None]:
        return self.store.working_on(
            key, lambda: self.say(f"another process works on {stage.name} {key}: waiting for it")
        )

    def _work(self, life: Life, stage: Stage) -> Output:
        """Call the stage's function in its window; keep the artifact first, then the record."""
        key, phase = life.key(stage), life.phase(stage)
        inputs = {name: self._obtain(life, needed) for name, needed in stage.inputs.items()}
        function = _resolve(stage.fn)
        bench, progress = self._bench(f"{phase:<8} {stage.name} {life.task.model.name} {key[:8]}", key)
        try:
            with bench.metered():
                output = function(bench, stage.params, **inputs)
            spent = bench.account()
            if output.network is not None or output.arrays:
                self.store.save_output(key, output)
        except BaseException as error:
            bench.close()
            progress.close(
                f"stopped ({_words(error)}); {self._wh(bench.reading.joules)} spent on it are kept in its account"
            )
            if isinstance(error, Exception) and not isinstance(error, StoreError):
                raise StageError(f"{stage.name} {key} failed: {_words(error)}") from error
            raise
        record = self.store.add(self._record(stage, life, output, spent, bench.reading))
        self.store.checkpoint_path(key).unlink(missing_ok=True)
        self.store.clear_attempts(self.device.profile, key)
        progress.close(self._done(record))
        return output

    def _measure(self, wanted: Sequence[Life], again: bool) -> None:
        """Measure the inference of every network shape that has no measurement yet, as one group whose windows take
        turns."""
        pending: dict[str, tuple[Life, Stage]] = {}
        for life in wanted:
            built = self.store.record(life.place.infer_profile, life.key(life.build))
            if built is None:
                raise StoreError(
                    f"the record of engine {life.key(life.build)} vanished while its network was worked on"
                )
            stage = life.measurement(built.details["signature"])
            key = life.key(stage)
            if again or not self.store.measurements(life.place.infer_profile, key):
                pending.setdefault(key, (life, stage))
            else:
                self.say(f"{Phase.INFER:<8} {stage.name} {key}: recorded")
        if pending:
            self._measure_group(pending)

    def _measure_group(self, pending: dict[str, tuple[Life, Stage]]) -> None:
        from benchmark.deploy.measure import measure_group, subject  # here: torch

        subjects = {}
        for key, (life, stage) in pending.items():
            network = self._obtain(life, life.plan.network).network
            if network is None or not isinstance(stage.params, Measurement):
                raise StageError(f"{life.plan.network.name} hands on no network to measure")
            subjects[key] = subject(network, stage.params, life.task, self.data_dir, self.device.torch_name)
        group = f"{now()}/{next(iter(pending))[:6]}"
        bench, progress = self._bench(f"{Phase.INFER:<8} inference of {len(pending)} network shape(s)", "measurement")
        try:
            with bench.metered():
                outputs = measure_group(bench, subjects)
        except BaseException as error:
            progress.close(f"stopped ({_words(error)})")
            if isinstance(error, Exception):
                raise StageError(f"the inference measurement failed: {_words(error)}") from error
            raise
        finally:
            self.store.clear_attempts(self.device.profile, "measurement")
        for key, (life, stage) in pending.items():
            values = outputs[key].values
            spent = Spent(values["spent_joules"], 0.0, values["spent_seconds"], 1, "")
            record = self._record(stage, life, outputs[key], spent, bench.reading)
            self.store.add(record.model_copy(update={"group": group}))
        progress.close(f"done, {self._wh(bench.reading.joules)} spent on measuring")

    def _bench(self, title: str, key: str) -> tuple[Workbench, Progress]:
        if self._tracer is None:
            self._tracer = EnergyTracer(self.device, synchronize=_ready(self.device), cpu_tdp_w=self.cpu_tdp_w)
        progress = Progress(title, estimated=self.device.kind == "cpu" and self.device.source.startswith("estimate"))
        site = Site(self.device.torch_name, self.device.profile, self.data_dir, self.store)
        return Workbench(site, key, self._tracer, progress), progress

    def _record(self, stage: Stage, life: Life, output: Output, spent: Spent, reading: Reading) -> Record:
        relative = reading.ci95_joules / reading.joules if reading.joules else 0.0
        details = {**output.details, **({"account": spent.note} if spent.note else {})}
        return Record(
            key=life.key(stage),
            fn=stage.fn,
            fn_version=stage.params.version,
            params=stage.params.model_dump(mode="json"),
            inputs={name: life.key(needed) for name, needed in stage.inputs.items()},
            joules=spent.useful,
            # an earlier attempt's share was read by the same meter: it is as uncertain, in proportion
            ci95_joules=spent.useful * relative,
            repeated_joules=spent.repeated,
            seconds=spent.seconds,
            source=reading.source,
            grade=reading.grade,
            reason=reading.reason,
            values=dict(output.values),
            details=details,
            reading=reading.to_json(),
            provenance=provenance(),
            device_name=self.device.name,
            profile=self.device.profile,
            commit=commit(),
            created=now(),
            attempts=spent.attempts,
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
        return f"{about}{joules / 3600:.4g} W.h" if joules == joules else "unknown W.h"


def _resolve(fn: str) -> StageFunction:
    """The stage function named `module:function`."""
    module, _, name = fn.partition(":")
    return cast(StageFunction, getattr(importlib.import_module(module), name))


def _ready(device: Device) -> Callable[[], None] | None:
    """Make the device ready before any window opens (torch imported, context made); returns what waits for it."""
    import torch

    if device.kind != "cuda":
        return None
    if not torch.cuda.is_available():
        raise ConfigError(
            f"{device.name} is there, but this torch ({torch.__version__}) cannot use it: "
            "install a CUDA build of torch, or say hardware=cpu"
        )
    torch.zeros(1, device=device.torch_name)

    def wait() -> None:
        torch.cuda.synchronize(device.torch_name)

    return wait


def _words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes it"
    text = " ".join(str(error).split())
    known = type(error).__module__.startswith(("benchmark", "methods"))
    return text if known and text else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the work like Ctrl-C does: windows close, journals are written."""

    def stop(number: int, frame: FrameType | None) -> Any:
        raise Interrupted

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: nothing to install, and nothing to restore
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
