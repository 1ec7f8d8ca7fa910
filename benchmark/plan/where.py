"""Where an experiment is worked and kept: hardware, executor and folders. In no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from benchmark.plan.task import Config


class Hardware(Config):
    """Where to run (`device`) and whose records count for training and inference (`None`: this machine's).

    `sample_s` are the seconds between two readings of power (None: the tracer's own, docs/energy.md).
    `executor=ray` runs on the Ray cluster at the address `cluster`, or without one on all GPUs of this box, or on
    `workers` of them (on a box without GPUs: processes that take turns).
    """

    device: str = "auto"
    train: str | None = None
    infer: str | None = None
    cpu_tdp_w: float | None = Field(default=None, gt=0, le=100_000)
    sample_s: float | None = Field(default=None, ge=0.005, le=10)
    executor: Literal["local", "ray"] = "local"
    cluster: str | None = None
    workers: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _only_ray_has_workers(self) -> Hardware:
        if self.executor != "ray" and (self.cluster is not None or self.workers is not None):
            raise ValueError("hardware.cluster and hardware.workers go with executor=ray")
        return self


class Paths(Config):
    """Where data lie, networks go and records stay. A leading `~` is the user's home."""

    data: Path
    artifacts: Path
    results: Path

    @field_validator("data", "artifacts", "results", mode="before")
    @classmethod
    def _a_folder(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.strip() or "\0" in value:
            raise ValueError("name a folder: an empty one would be the present folder (say . for that)")
        try:
            return Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{value} cannot be found ({error}): write the folder in full") from error
