"""What a report is asked for: it decides how rows are read, and is part of no life."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.plan.task import Config, DeployPrecision

MAX_DROP_PCT: dict[DeployPrecision, float] = {"tf32": 0.5, "bf16": 0.5, "fp16": 0.5, "int8": 3.0}


class Asked(Config):
    """`tau` is the exponent of accuracy in G. `max_drop_pct` says, by precision, how many points of accuracy an engine
    may lose against its network before its rows carry a warning."""

    tau: float = Field(gt=0, le=100)
    max_drop_pct: dict[DeployPrecision, Annotated[float, Field(ge=0, le=100)]] = MAX_DROP_PCT
