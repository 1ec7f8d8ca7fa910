"""What distillation is told: which terms, how they are set and how they weigh. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, StrictStr

from benchmark.plan.task import Config, Params, Task


def _one_spelling(value: Any) -> Any:
    """4.0 is 4: one setting must not have two keys."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Value = Annotated[StrictInt | StrictFloat | StrictStr, BeforeValidator(_one_spelling)]
"""A number or a text as the YAML means it; True and '4' are no numbers."""

OTHERS = "others"
"""In `Choice.tuned`: what all pairs get that have no entry of their own."""


class Weights(Config):
    """gamma CE + alpha KL + beta term, as RepDistiller has it; without CE or KL (None) the method has no such part.

    A weight of zero is another thing: RepDistiller computes the divergence of every method and then weighs it with
    zero. The term's own weight may be None in a YAML: tuned for the pair. `ramp_epochs` lets it grow linearly from 1/n
    in the first epoch to the whole in the n-th.
    """

    ce: float | None = Field(default=1, ge=0)
    kd: float | None = Field(default=None, ge=0)
    term: float | None = Field(default=1, ge=0)
    kd_temperature: float = Field(default=4, gt=0)
    ramp_epochs: int = Field(default=0, ge=0)


class TermChoice(Config):
    """A paper's term: its class as `module:Class`, and the values of that class's own `Settings`; None: tuned for the
    pair."""

    kind: str = Field(pattern=r"^[\w.]+:\w+$")
    settings: dict[str, Value | None] = Field(default_factory=dict)


class Tuned(Config):
    """What a paper's authors tuned for a pair: the term's weight, and settings of the term."""

    weight: float | None = Field(default=None, ge=0)
    settings: dict[str, Value] = Field(default_factory=dict)


class Choice(Config):
    """A method as its YAML has it: the main term, its weights, the initial term where the method has one, and what was
    tuned by pair (`teacher__student`, or `others`)."""

    term: TermChoice
    weights: Weights
    initial: TermChoice | None = None
    tuned: dict[str, Tuned] = Field(default_factory=dict)

    def for_pair(self, teacher: str, student: str) -> Self:
        """The same method for two networks of the zoo, named as in `vgg13`, with nothing left open.

        What is left open takes the pair's own value, else that of `others`. Raises ValueError where neither has one.
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
    """What the stages of distillation share. `task` is the student's, its recipe that of the stage; `no_waste` leaves
    out what changes nothing.

    A stage goes on after the `first_epoch` epochs of an initial one: its draws (order of the images, crops, flips) are
    theirs continued, as from the one loader of the original.
    """

    task: Task
    term: TermChoice
    first_epoch: int = 0
    no_waste: bool = False


class Preparing(Learning):
    """Parameters of `methods.distillation.stages:initial`."""


class Distilling(Learning):
    """Parameters of `methods.distillation.stages:distil`."""

    weights: Weights
