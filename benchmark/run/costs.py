"""A stated model of what a stage costs, for what no record tells yet: right within a factor of about two, and never
shown as a measurement."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path
from typing import NamedTuple

from benchmark.plan.stage import Stage
from benchmark.plan.task import Passes

SIZES = Path(__file__).with_name("sizes.csv")
"""MACs of one image and computing modules of the study's networks, written by scripts/make_sizes.py."""


class Machine(NamedTuple):
    """How fast a machine computes, and at what power: the assumptions of the model.

    A step takes the longer of its arithmetic and its kernels, which cost `kernel_s` each: `training` of them for a
    module that is trained, `answering` for one that only answers. Power is `waiting_w` where kernels are waited for,
    and `busy_w` where arithmetic takes all of the time.
    """

    name: str
    flops_per_s: float
    kernel_s: float
    training: float
    answering: float
    waiting_w: float
    busy_w: float


H100 = Machine("an H100 in TF32 with CUDA graphs", 100e12, 4e-6, 3.5, 1.5, 200.0, 600.0)
"""docs/performance.md: rates from a roofline of its kernels, none of them measured; powers assumed."""


def of_cpu(threads: int) -> Machine:
    """A CPU with that many threads: 20 GFLOP/s and 4 W each, and 40 microseconds for a module's pass."""
    return Machine(
        f"a CPU of {threads} thread{'s' if threads != 1 else ''}",
        20e9 * threads,
        40e-6,
        3.0,
        1.0,
        4.0 * threads,
        4.0 * threads,
    )


class Cost(NamedTuple):
    """Joules and seconds by the model; NaN where it knows too little."""

    joules: float
    seconds: float


UNKNOWN = Cost(math.nan, math.nan)


def modelled(stage: Stage, machine: Machine) -> Cost:
    """What a stage costs by the model: unknown where it does not say what it does, or runs a network of no known
    size."""
    effort = stage.effort()
    if effort is None:
        return UNKNOWN
    joules, seconds = effort.seconds * machine.waiting_w, effort.seconds
    for passes in effort.passes:
        cost = _passes(passes, machine)
        joules, seconds = joules + cost.joules, seconds + cost.seconds
    return Cost(joules, seconds)


def _passes(passes: Passes, machine: Machine) -> Cost:
    size = sizes().get(passes.model.name)
    if size is None:
        return UNKNOWN
    macs, modules = size
    steps = passes.images / passes.batch
    flops = 2 * macs * passes.batch * passes.times * (3 if passes.trains else 1)  # backward: twice the forward pass
    arithmetic_s = flops / machine.flops_per_s
    kernels_s = modules * (machine.training if passes.trains else machine.answering) * machine.kernel_s
    step_s = max(arithmetic_s, kernels_s)
    watts = machine.waiting_w + (machine.busy_w - machine.waiting_w) * arithmetic_s / step_s
    return Cost(steps * step_s * watts, steps * step_s)


@functools.cache
def sizes() -> dict[str, tuple[int, int]]:
    """MACs and modules by the name of a network."""
    with SIZES.open(newline="") as file:
        return {row["model"]: (int(row["macs"]), int(row["modules"])) for row in csv.DictReader(file)}
