"""What is remembered of a life that was asked for: everything its rows need, so that no code has to plan it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from benchmark.plan.stage import Phase, digest_of, kind_of
from benchmark.plan.task import Config

FORMAT: Literal[1] = 1


class RunPass(Config):
    """Images that a stage of TEC shows to a network, as `task.Passes` says it: for its FLOPs."""

    model: str
    images: float = Field(ge=0, le=1e15)
    trains: bool
    times: float = Field(default=1.0, ge=0, le=1e6)


class RunStage(Config):
    """A stage as it was planned: its place in the life, its key, what it calls in which version, the keys it rests on,
    and the machine whose record of it counts. `passes` is None where the stage does not say what it will do."""

    phase: Phase
    kind: Literal["TEC", "deploy", "IEC"]
    key: str
    fn: str
    version: int
    inputs: dict[str, str]
    machine: str
    passes: tuple[RunPass, ...] | None = None

    @model_validator(mode="after")
    def _kind_is_the_phases(self) -> RunStage:
        if self.kind != kind_of(self.phase):
            raise ValueError(f"a stage of phase {self.phase} is of kind {kind_of(self.phase)}, not {self.kind}")
        return self

    @property
    def name(self) -> str:
        """The function's own name, for people."""
        return self.fn.rpartition(":")[2]


class Words(Config):
    """What a life is about, in the words of the command; numbers of images and classes as they are, never 'all'."""

    method: str
    model: str
    teacher: str
    data: str
    classes: int
    recipe: str
    scale: str
    train_images: int
    test_images: int
    max_epochs: int | None
    profile: str
    train_precision: str
    deploy_precision: str
    engine: str
    engine_version: str


class RunFile(Config):
    """One experiment with one seed, as planned.

    `plan` is the digest of the whole plan without its seed: it groups seeds, and keeps apart what an older version of
    the code planned. `settings` holds every setting by its dotted name. `measurement` is the digest of what the
    inference measurement is asked for, but for the signature, which is known once the engine is built: its record names
    both. `unmeasured` names phases whose energy nobody measured, with the reason.
    """

    format: Literal[1] = FORMAT
    experiment: str
    plan: str
    seed: int
    words: Words
    settings: dict[str, str]
    train_machine: str
    infer_machine: str
    measurement: str
    measurement_version: int
    stages: tuple[RunStage, ...]
    unmeasured: Mapping[Phase, str] = Field(default_factory=dict)
    created: str

    @model_validator(mode="after")
    def _unmeasured_is_tec(self) -> RunFile:
        for phase, why in self.unmeasured.items():
            if kind_of(phase) != "TEC" or not why:
                raise ValueError(f"the phase {phase} is unmeasured, which takes a phase of TEC and a reason")
        return self

    @model_validator(mode="after")
    def _stages_are_the_plans(self) -> RunFile:
        """A run that lost a stage, or names one twice, would be computed as a life that cost another amount."""
        seen: set[str] = set()
        for stage in self.stages:
            if stage.key in seen:
                raise ValueError(f"the stage {stage.name} {stage.key} is listed twice")
            if not seen.issuperset(stage.inputs.values()):
                raise ValueError(f"{stage.name} rests on a stage that is not listed before it")
            machine = self.train_machine if stage.kind == "TEC" else self.infer_machine
            if stage.machine != machine:
                raise ValueError(f"{stage.name} is of {stage.machine}, and its phase of {machine}")
            seen.add(stage.key)
        if any(stage.phase is Phase.DEPLOY for stage in self.stages[:-1]):
            raise ValueError("its last stage, and no other, may build the engine")
        # of other seeds the digest cannot be told again: it is of the keys that seed 0 has
        if self.seed == 0 and self.plan != self._digest():
            raise ValueError("its stages are not those of its plan")
        return self

    def _digest(self) -> str:
        """The digest of this plan, as `Life.digest` makes it, from the stages of seed 0."""
        keys = [[str(stage.phase), stage.key] for stage in self.stages]
        place = {
            "train_machine": self.train_machine,
            "infer_machine": self.infer_machine,
            "engine_version": self.words.engine_version,
        }
        known: list[object] = [keys, self.measurement, place]
        unmeasured = {str(phase): why for phase, why in self.unmeasured.items()}
        return digest_of([*known, unmeasured] if unmeasured else known)

    @property
    def shape(self) -> list[tuple[Phase, str, int]]:
        """What all seeds of one plan have in common: phase, function and version of every stage."""
        return [(stage.phase, stage.fn, stage.version) for stage in self.stages]

    @property
    def name(self) -> str:
        """The file's name: one for each experiment, plan and seed."""
        return f"{self.experiment}-s{self.seed}"
