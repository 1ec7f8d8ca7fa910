"""The parameters of distillation: the terms, their settings and their weights. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, StrictStr

from benchmark.plan.task import Config, Effort, Given, Params, Task


def _one_spelling(value: Any) -> Any:
    """Turn 4.0 into 4, because one setting must not have two keys."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Value = Annotated[StrictInt | StrictFloat | StrictStr, BeforeValidator(_one_spelling)]
"""A number or a text, as written in the YAML; True and '4' are not numbers."""

OTHERS = "others"
"""The entry of `Choice.tuned` for all pairs without an entry of their own."""


class Weights(Config):
    """gamma CE + alpha KL + beta term, as in RepDistiller; None for CE or KL means that the method has no such part.

    A weight of zero is different: RepDistiller computes the divergence of every method and multiplies it by zero. The
    term's weight may be None in a YAML: it is then the one tuned for the pair. With `ramp_epochs` = n the term's weight
    grows linearly, from 1/n of its value in the first epoch to the full value in the n-th.
    """

    ce: float | None = Field(default=1, ge=0)
    kd: float | None = Field(default=None, ge=0)
    term: float | None = Field(default=1, ge=0)
    kd_temperature: float = Field(default=4, gt=0)
    ramp_epochs: int = Field(default=0, ge=0)


class TermChoice(Config):
    """A paper's term: its class as `module:Class`, and values for this class's `Settings` (None: tuned for the
    pair)."""

    kind: str = Field(pattern=r"^[\w.]+:\w+$")
    settings: dict[str, Value | None] = Field(default_factory=dict)


class Tuned(Config):
    """The values that a paper's authors tuned for a pair: the term's weight, and settings of the term."""

    weight: float | None = Field(default=None, ge=0)
    settings: dict[str, Value] = Field(default_factory=dict)


class Choice(Config):
    """A method as in its YAML: the main term, its weights, the initial term (if any), and values tuned for pairs.

    The tuned values are named by pair (`teacher__student`, or `others`).
    """

    term: TermChoice
    weights: Weights
    initial: TermChoice | None = None
    tuned: dict[str, Tuned] = Field(default_factory=dict)

    def for_pair(self, teacher: str, student: str) -> Self:
        """The same method for two networks of the zoo, named as in `vgg13`, with a value for everything.

        A value of None is replaced by the pair's tuned value, or by that of `others`. Raises ValueError where neither
        exists.
        """
        pair, rest = (self.tuned.get(name, Tuned()) for name in (f"{teacher}__{student}", OTHERS))
        weight = self.weights.term
        if weight is None:
            weight = rest.weight if pair.weight is None else pair.weight
        settings = _filled(self.term.settings, {**rest.settings, **pair.settings})
        missing = [name for name, value in {"weights.term": weight, **settings}.items() if value is None]
        if missing:
            raise ValueError(f"{', '.join(missing)}: nothing is tuned for {teacher} -> {student}: give a number")
        update = {
            "term": self.term.model_copy(update={"settings": settings}),
            "weights": self.weights.model_copy(update={"term": weight}),
            "tuned": {},
        }
        return self.model_copy(update=update)


def _filled(settings: Mapping[str, Value | None], tuned: Mapping[str, Value]) -> dict[str, Value | None]:
    return {name: tuned.get(name) if value is None else value for name, value in settings.items()}


class Learning(Params):
    """The common parameters of distillation's stages.

    `task` is the student's, with the recipe of the stage; `no_waste` leaves out unused computations. A stage comes
    after the `first_epoch` epochs of an initial stage, if any. Its random draws (order of the images, crops, flips)
    continue those of the initial stage, as with the single loader of the original.
    """

    task: Task
    term: TermChoice
    first_epoch: int = 0
    no_waste: bool = False

    def effort(self, given: Given) -> Effort:
        """The student's epochs, and the teacher's answers to the same images."""
        student = self.task.training()
        teacher = getattr(given.get("teacher"), "task", None)
        if not isinstance(teacher, Task):
            return Effort((student,))
        return Effort((student, student._replace(model=teacher.model, trains=False)))


class Preparing(Learning):
    """Parameters of `methods.distillation.stages:initial`."""


class Distilling(Learning):
    """Parameters of `methods.distillation.stages:distil`."""

    weights: Weights
