"""What is remembered of a life that was asked for: everything its rows need, so that no code has to plan it again."""

from __future__ import annotations

from typing import Any

from benchmark.plan.stage import Phase
from benchmark.plan.task import Config

FORMAT = 1


class RunStage(Config):
    """A stage as it was planned: its place in the life, its key, what it calls in which version, the keys it rests on,
    and the machine whose record of it counts."""

    phase: Phase
    kind: str
    key: str
    fn: str
    version: int
    inputs: dict[str, str]
    machine: str

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
    the code planned. `settings` holds every setting by its dotted name. `measurement` is what the inference measurement
    is asked for, but for the signature, which is known once the engine is built: its record is found by these values.
    """

    format: int = FORMAT
    experiment: str
    plan: str
    seed: int
    words: Words
    settings: dict[str, str]
    train_machine: str
    infer_machine: str
    measurement: dict[str, Any]
    stages: tuple[RunStage, ...]
    created: str

    @property
    def name(self) -> str:
        """The file's name: one for each experiment, plan and seed."""
        return f"{self.experiment}-s{self.seed}"
