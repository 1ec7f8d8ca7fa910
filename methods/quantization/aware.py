"""Quantization-aware training as a plan: base training, training under fake quantization, an INT8 engine. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Recipe, Task
from methods.baseline import plain
from methods.start import start_of
from methods.way import Continued, Way, with_recipe


class Simulating(Config):
    """How training simulates INT8: which scales, in which layout, and how long ranges and statistics move."""

    scales: Literal["observed", "learned"] = "observed"
    layout: Literal["trt", "ort"] = "trt"
    averaging: float = Field(default=0.01, gt=0, le=1)
    observer_epochs: int = Field(default=5, ge=1)
    batch_norm_epochs: int = Field(default=4, ge=0)


class Aware(Continued):
    """Parameters of `methods.quantization.stages:train`. The recipe of `task` is that of this training."""

    how: Simulating = Simulating()


class QuantizationAware(Simulating):
    """Train, train further under fake quantization, deploy in INT8 by the scales of that training.

    The second training takes a share `epochs` of the base recipe's epochs (at least one). It starts at a share `lr` of
    the recipe's rate, and falls along a cosine to a share `final_lr` of this start. Source: NVIDIA's guidance for
    quantization-aware training; torchvision's epochs of moving ranges and statistics. `start` is the block of another
    method whose network is trained further.
    """

    epochs: float = Field(default=0.1, gt=0, le=1)
    lr: float = Field(default=0.01, gt=0)
    final_lr: float = Field(default=0.01, ge=0, le=1)
    start: Mapping[str, Any] | None = None

    def plan(self, task: Task) -> Plan:
        """Base training (or the steps of `start`), then training under fake quantization.

        The network and the scales of the second training are deployed. Raises ValueError where the task asks for
        another precision.
        """
        if task.deploy_precision not in (Task.model_fields["deploy_precision"].default, "int8"):
            raise ValueError(f"this method deploys int8: leave out deploy_precision={task.deploy_precision}")
        if task.train_precision in ("bf16", "fp16"):
            raise ValueError(
                f"fake quantization trains in fp32 or tf32, not under autocast in {task.train_precision}, because the "
                "network is exported as it is trained: leave train_precision out (base_precision= may be set)"
            )
        way, own = Way.after(start_of(self.start).plan(task)), plain(task)
        how = Simulating(**{name: getattr(self, name) for name in Simulating.model_fields})
        params = Aware(task=with_recipe(own, self._recipe(own.recipe)), first_epoch=way.epochs(), how=how)
        way.go(Phase.RETRAIN, Stage("methods.quantization.stages:train", params, {"trained": way.network}))
        return Plan(steps=tuple(way.steps), network=way.network, deploy=Precision("int8", way.network))

    def check(self, task: Task) -> None:
        """Raise ValueError where the start cannot be run, or the engine's places cannot be found in a new model."""
        start_of(self.start).check(task)
        from methods.quantization.rehearsal import rehearse  # here, not above: planning must not pay for torch

        how = Simulating()
        rehearse(task.model, task.data.classes, how.scales, how.layout, how.averaging)

    def _recipe(self, base: Recipe) -> Recipe:
        lr = self.lr * base.lr
        update = {
            "name": f"{base.name}-aware",
            "epochs": max(1, round(self.epochs * base.epochs)),
            "lr": lr,
            "final_lr": self.final_lr * lr,
            "schedule": "cosine",
            "warmup_epochs": 0,
        }
        return base.model_copy(update=update)
