"""The two stages the harness appends to every plan: build the engine, measure an inference. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.plan.stage import Plan, Stage
from benchmark.plan.task import Config, Data, DeployPrecision, Params, Scale, Task


class Build(Params):
    """Parameters of `benchmark.deploy.build:build_engine`; data and scale say which test images its accuracy is of."""

    engine: str
    precision: DeployPrecision
    data: Data
    scale: Scale


class Inference(Config):
    """The inference protocol; see benchmark.deploy.measure. Times in seconds.

    Idle before and after, warm-up (at least `warmup_s`, at most `warmup_cap_s`), a short window for each batch size,
    then
    `windows` windows of `window_s` in each scenario.
    """

    idle_s: float = Field(gt=0)
    warmup_s: float = Field(gt=0)
    warmup_cap_s: float = Field(gt=0)
    window_s: float = Field(gt=0)
    windows: int = Field(ge=2)
    curve_window_s: float = Field(gt=0)
    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)


class Measurement(Params):
    """Parameters of `benchmark.deploy.measure:inference`: what decides the energy of one inference, and the protocol.

    `signature` names the network's layer shapes, so all networks of one shape share a measurement. Data and scale
    name the
    images that are shown: power depends on them, and a smoke measurement must never stand for a full one.
    """

    signature: str
    data: str
    scale: str
    engine: str
    precision: DeployPrecision
    protocol: Inference


def build_stage(plan: Plan, task: Task, engine: str) -> Stage:
    """The stage that turns the plan's network into an engine and proves its accuracy."""
    inputs = {"network": plan.network}
    if plan.deploy.scales is not None:
        inputs["scales"] = plan.deploy.scales
    data = task.data.model_copy(update={"search": Data.model_fields["search"].default})
    params = Build(engine=engine, precision=plan.deploy.name, data=data, scale=task.scale)
    return Stage("benchmark.deploy.build:build_engine", params, inputs, device_bound=True)


def measure_stage(measurement: Measurement) -> Stage:
    """The stage that measures an inference; it has no inputs in its key, for the shape alone decides the energy."""
    return Stage("benchmark.deploy.measure:inference", measurement, device_bound=True)
