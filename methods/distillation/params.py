"""What distillation is told: which terms, how they are set and how they weigh. Torch-free."""

from __future__ import annotations

from pydantic import Field

from benchmark.plan.task import Config


class Weights(Config):
    """gamma CE + alpha KL + beta term, as RepDistiller has it; None means that the method has no such part.

    A weight of zero is another thing: RepDistiller computes the divergence of every method and then weighs it with
    zero. `ramp_epochs` lets the term's weight grow linearly from 1/n in the first epoch to 1 in the n-th.
    """

    ce: float | None = Field(default=1, ge=0)
    kd: float | None = Field(default=None, ge=0)
    term: float = Field(default=1, ge=0)
    kd_temperature: float = Field(default=4, gt=0)
    ramp_epochs: int = Field(default=0, ge=0)


class TermChoice(Config):
    """A paper's term: its class as `module:Class`, and the values of that class's own `Settings`."""

    kind: str = Field(pattern=r"^[\w.]+:\w+$")
    settings: dict[str, float | int | str] = Field(default_factory=dict)


class Choice(Config):
    """A method as its YAML has it: the main term, its weights, and the initial term where the method has one."""

    term: TermChoice
    weights: Weights
    initial: TermChoice | None = None
