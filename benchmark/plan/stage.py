"""The vocabulary of a life cycle: stages, plans, and what stages hand on. Pure data, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from benchmark.plan.task import DeployPrecision, Effort, Params


class Phase(StrEnum):
    """The paper's Table 1. TEC is the energy of the first three."""

    BASE = "base"
    COMPRESS = "compress"
    RETRAIN = "retrain"
    DEPLOY = "deploy"
    INFER = "infer"


TEC_PHASES = (Phase.BASE, Phase.COMPRESS, Phase.RETRAIN)


def kind_of(phase: Phase) -> str:
    """What the energy of a phase counts as: 'TEC', 'deploy' (building the engine: beside TEC) or 'IEC'."""
    return "TEC" if phase in TEC_PHASES else "deploy" if phase is Phase.DEPLOY else "IEC"


class Bound(StrEnum):
    """What a stage's result belongs to beside its inputs, and so what else is in its key.

    DEVICE: the machine of its phase (a look-up table). ENGINE: that machine and the engine's version (an engine).
    """

    NOTHING = "nothing"
    DEVICE = "device"
    ENGINE = "engine"


@dataclass(frozen=True)
class Stage:
    """A function named `module:function`, its parameters and its input stages: equal stages have equal keys and are
    worked once."""

    fn: str
    params: Params
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    bound: Bound = Bound.NOTHING

    def key(self, binding: Callable[[Stage], str]) -> str:
        """Twenty hexadecimal digits that name this stage; `binding` tells in words what a bound stage is bound to."""
        identity: dict[str, Any] = {
            "fn": self.fn,
            "version": self.params.version,
            "params": self.params.identity(),
            "inputs": {name: stage.key(binding) for name, stage in sorted(self.inputs.items())},
        }
        if self.bound is not Bound.NOTHING:
            identity["device"] = binding(self)
        return digest_of(identity)[:20]

    @property
    def name(self) -> str:
        """The function's own name, for people."""
        return self.fn.rpartition(":")[2]

    def effort(self) -> Effort | None:
        """What the stage will do, for forecasts; None where nobody knows."""
        return self.params.effort({name: stage.params for name, stage in self.inputs.items()})

    def walk(self) -> Iterator[Stage]:
        """Every stage this one rests on, inputs first, then itself."""
        for stage in self.inputs.values():
            yield from stage.walk()
        yield self


def digest_of(content: Any) -> str:
    """The SHA-256 of plain JSON data, whatever the order of its names."""
    words = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(words.encode()).hexdigest()


@dataclass(frozen=True)
class Precision:
    """The number format of the deployed engine; `scales` is the stage that calibrated it, where one did."""

    name: DeployPrecision
    scales: Stage | None = None


@dataclass(frozen=True)
class Plan:
    """What a method promises: its metered steps in order, the stage whose network is deployed, and in which
    precision.

    `unmeasured` names phases of the life whose energy nobody measured here, with the reason: TEC is then unknown.
    """

    steps: tuple[tuple[Phase, Stage], ...]
    network: Stage
    deploy: Precision
    unmeasured: Mapping[Phase, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Every stage that another rests on must be a step of its own, and come first: else its energy would go
        unbooked."""
        seen: list[Stage] = []
        for _, stage in self.steps:
            for needed in stage.inputs.values():
                if needed not in seen:
                    raise ValueError(f"{stage.fn} rests on {needed.fn}, which is no earlier step of the plan")
            seen.append(stage)
        for phase, why in self.unmeasured.items():
            if phase not in TEC_PHASES or not why:
                raise ValueError(f"a plan may leave a phase of TEC unmeasured, with a reason: not {phase} ({why!r})")
        ends = [self.network, *([self.deploy.scales] if self.deploy.scales else [])]
        for end in ends:
            if end not in seen:
                raise ValueError(f"{end.fn} is to be deployed but is no step of the plan")


@dataclass(frozen=True)
class Network:
    """A trained network as data: who builds it (`builder`, `kwargs`), its tensors, and the normalisation its input
    expects.

    Shapes of pruned layers come from the tensors, so a shrunk network loads without the method that made it.
    """

    builder: str
    kwargs: Mapping[str, Any]
    tensors: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class EngineFile:
    """A built engine as data: its `kind`, tensors in the engine's own format, and what loading needs (`facts`, JSON).

    `executes` says what it really runs: precision, layout, library and its switches. `signature` names everything that
    decides the energy of an inference: two engines of one signature share a measurement. `evidence` (JSON) goes into
    the record: what the engine's library says that it made of the network.
    """

    kind: str
    tensors: Mapping[str, Any]
    facts: Mapping[str, Any]
    executes: Mapping[str, Any]
    signature: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What a stage function returns: a network, arrays or an engine for later stages, numbers for rows, and details for
    the record. All of it is kept until nobody needs it, so a stage may rest on any part of another's output."""

    network: Network | None = None
    arrays: Mapping[str, Any] | None = None
    engine: EngineFile | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one call of something costs: the mean over `n` calls inside one window.

    Joules are NaN, with a `reason`, where no meter can see them. `reading` is the window's whole account, as plain
    data.
    """

    joules: float
    ci95_joules: float
    seconds: float
    n: int
    source: str
    grade: str
    reason: str
    reading: Mapping[str, Any]


class Bench(Protocol):
    """What the harness gives to every stage function: a device, and the means to pause, save, report and ask for a
    cost."""

    device: str
    """The torch device to compute on: 'cpu' or 'cuda:0'."""
    data_dir: Path
    """Where data sets lie."""

    def paused(self) -> AbstractContextManager[None]:
        """Take what happens inside off the meter (evaluation, logging)."""

    def checkpoint(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Offer a state to resume from; it is asked for and written when the last one is old enough (60 s)."""

    def resume(self) -> Mapping[str, Any] | None:
        """The state an interrupted run left, or None."""

    def progress(self, done: float, total: float, **shown: float) -> None:
        """Tell how far the stage is (`done` of `total`) and numbers worth seeing; cheap enough for every step."""

    def once(self, what: str, decide: Callable[[], str]) -> str:
        """`decide()`, asked once per machine, off the meter, and kept: a choice that only a trial can settle must not
        be settled again, and differently, by the next stage. `what` names all that the choice depends on."""

    def cost(self, call: Callable[[], object], n: int) -> Cost:
        """Measure `n` calls of something in a window of its own inside the stage's."""
