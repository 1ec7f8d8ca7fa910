"""What the harness adds to every plan: calibration where int8 needs it, the engine, its measurement. Torch-free.

Also what an engine must offer (`EngineKind`), so that planning can ask for versions and precisions without importing
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import ConfigDict, Field

from benchmark.errors import UserError
from benchmark.plan.stage import Bound, EngineFile, Network, Phase, Plan, Precision, Stage, digest_of
from benchmark.plan.task import Calibrating, Config, Data, DeployPrecision, Effort, Given, Params, Scale, Task

Buffers = Literal["torch", "pycuda"]
"""Who owns the memory that an engine reads and writes, and the stream it runs on."""


class EngineError(UserError):
    """An engine cannot be had, or cannot run a network as asked; the message says why."""


class Engine(Protocol):
    """A loaded engine: maps a prepared batch to logits. Never waits for the device by itself."""

    executes: Mapping[str, Any]
    """What it runs: `precision` in words, `layout`, `library`, `switches` (as they are after loading), and
    `comparable_to_tensorrt`."""

    def prepare(self, images: Any) -> Any:
        """A batch of normalised float32 images [n, 3, 32, 32] as this engine wants it, on its device."""

    def __call__(self, prepared: Any) -> Any:
        """Logits [n, classes] of a prepared batch. Read them after `synchronise`: an engine may have its own stream."""

    def synchronise(self) -> None:
        """Wait until everything asked for is done."""


@dataclass(frozen=True)
class BuildOrder:
    """What an engine is built from and for: a network, the scales of its calibration where there was one, and the
    torch device.

    `choose(what, decide)` gives `decide()`, asked once per machine and kept: for choices that a trial must settle.
    """

    network: Network
    scales: Mapping[str, Any] | None
    precision: DeployPrecision
    device: str
    choose: Callable[[str, Callable[[], str]], str]


class EngineKind(Protocol):
    """A way to run trained networks. One module of benchmark/deploy/engines holds one, as `KIND`; importing that module
    must import no engine, for planning does it."""

    name: str
    preference: int
    """engine=auto takes the highest of those that are available."""
    buffers: tuple[Buffers, ...]
    """The choices of `inference.buffers` that it can run on, the default first."""

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Why this engine cannot run `precision` on a device of kind 'cuda' or 'cpu' here; empty where it can."""

    def version(self) -> str:
        """The version of the library itself, whatever its distribution is called; 'absent' where there is none."""

    def prove(self, precision: DeployPrecision, device: str) -> None:
        """Import the library and make its builder, before the first stage runs.

        What only this can show must not come out after a day of training. Raises EngineError; no other engine is chosen
        instead.
        """

    def build(self, order: BuildOrder) -> EngineFile:
        """Build the engine of a network. Raises EngineError."""

    def load(self, built: EngineFile, device: str, buffers: Buffers = "torch") -> Engine:
        """A built engine, ready to run. Raises EngineError."""


class Here(Config):
    """The machine that plans: its device's kind, its name as records have it, and the engines it knows."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    device_kind: str
    machine: str
    engines: tuple[Any, ...]

    def kind(self, name: str) -> EngineKind | None:
        """The engine called `name`."""
        found: EngineKind | None = next((kind for kind in self.engines if kind.name == name), None)
        return found


class Build(Params):
    """Parameters of `benchmark.deploy.build:build_engine`; data and scale say which test images its accuracy is of."""

    engine: str
    precision: DeployPrecision
    data: Data
    scale: Scale

    def effort(self, given: Given) -> Effort:
        """Export, building, a look at the test images: of an order that depends little on the network."""
        return Effort(seconds=20.0)


class Calibration(Params):
    """Parameters of `benchmark.deploy.calibrate:scales`: which training images are looked at (drawn by `seed`), and how
    a range is chosen."""

    data: Data
    scale: Scale
    seed: int = Field(default=0, ge=0)
    how: Calibrating = Calibrating()

    def effort(self, given: Given) -> Effort:
        """An export, and the histograms of the activations of a few images."""
        return Effort(seconds=20.0)


DAY_S = 86_400.0


class Inference(Config):
    """The inference protocol; see benchmark.deploy.measure. Times in seconds.

    Idle before and after, warm-up (at least `warmup_s`, at most `warmup_cap_s`), a short window for each batch size,
    then `windows` windows of `window_s` in each scenario. `buffers`: who owns the engine's memory, where it has a
    choice.
    """

    idle_s: float = Field(gt=0, le=DAY_S)
    warmup_s: float = Field(gt=0, le=DAY_S)
    warmup_cap_s: float = Field(gt=0, le=DAY_S)
    window_s: float = Field(gt=0, le=DAY_S)
    windows: int = Field(ge=2, le=10_000)
    curve_window_s: float = Field(gt=0, le=DAY_S)
    batch_sizes: tuple[Annotated[int, Field(gt=0, le=65_536)], ...] = Field(min_length=1, max_length=100)
    buffers: Buffers = "torch"


class Measurement(Params):
    """Parameters of `benchmark.deploy.measure:inference`: what decides the energy of one inference, and the protocol.

    `signature` names the network's layer shapes and what the engine executes, so all networks of one shape share a
    measurement. The test images are those that are shown: power depends on them, and a smoke measurement must never
    stand for a full one.
    """

    signature: str
    data: Data
    test_images: int | None
    engine: str
    precision: DeployPrecision
    protocol: Inference

    def effort(self, given: Given) -> Effort:
        """The protocol's times: idle twice, warm-up (of each scenario), the curve, and both scenarios' windows."""
        times = self.protocol
        curve = times.curve_window_s * len(times.batch_sizes)
        return Effort(seconds=2 * times.idle_s + 2 * times.warmup_s + curve + 2 * times.windows * times.window_s)


def asked(measurement: Measurement) -> str:
    """The digest of what a measurement is asked for: all but the signature and the version. A new field with a default
    changes it as little as a key."""
    identity = measurement.identity()
    return digest_of({name: value for name, value in identity.items() if name not in ("signature", "version")})


def with_calibration(plan: Plan, task: Task) -> Plan:
    """The plan as it is, or, where int8 is asked of one that has no scales, with a calibration of its network at its
    end."""
    if plan.deploy.name != "int8" or plan.deploy.scales is not None:
        return plan
    scales = calibration_stage(plan.network, task)
    steps = (*plan.steps, (Phase.COMPRESS, scales))
    return Plan(steps=steps, network=plan.network, deploy=Precision("int8", scales))


def calibration_stage(network: Stage, task: Task) -> Stage:
    """The calibration of a stage's network on the task's training images.

    It is the same stage, with the same key, whichever plan asks for it.
    """
    params = Calibration(data=without_search(task.data), scale=task.scale, seed=task.seed, how=task.calibration)
    return Stage("benchmark.deploy.calibrate:scales", params, {"network": network})


def build_stage(plan: Plan, task: Task, engine: str) -> Stage:
    """The stage that turns the plan's network into an engine and proves its accuracy."""
    inputs = {"network": plan.network}
    if plan.deploy.scales is not None:
        inputs["scales"] = plan.deploy.scales
    params = Build(engine=engine, precision=plan.deploy.name, data=without_search(task.data), scale=task.scale)
    return Stage("benchmark.deploy.build:build_engine", params, inputs, bound=Bound.ENGINE)


def measure_stage(measurement: Measurement) -> Stage:
    """The stage that measures an inference. Its key holds no inputs, because the signature alone decides the energy."""
    return Stage("benchmark.deploy.measure:inference", measurement, bound=Bound.ENGINE)


class Choice(NamedTuple):
    """An engine, and why it was chosen: empty where the command named it."""

    engine: str
    why: str


def choose_engine(here: Here, asked: str) -> Choice:
    """The engine that `asked` means here: itself, or for 'auto' the preferred one of those that can run.

    The precision plays no part: what auto means must not differ between two rows of a study. Raises ValueError where
    none can run.
    """
    if asked != "auto":
        return Choice(asked, "")
    order: list[EngineKind] = sorted(here.engines, key=lambda kind: -kind.preference)
    cannot = [(kind.name, kind.why_unavailable("fp32", here.device_kind)) for kind in order]
    able = next((kind for kind, (_, why) in zip(order, cannot, strict=True) if not why), None)
    if able is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in cannot)
        raise ValueError(f"engine=auto: no engine can run here ({reasons})")
    passed = "; ".join(f"{name}: {why}" for name, why in cannot[: order.index(able)])
    place = "a GPU" if here.device_kind == "cuda" else "a CPU"
    why = f"engine=auto is {able.name} {able.version()}, the first choice on {place}"
    return Choice(able.name, f"{why} of those that can run here ({passed})" if passed else why)


def without_search(data: Data) -> Data:
    """Where an architecture was searched does not matter to those who run it."""
    return data.model_copy(update={"search": Data.model_fields["search"].default})
