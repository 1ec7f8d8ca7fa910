"""Automatic mixed precision: plain training under autocast, against the baseline that trains in fp32 or tf32.

Weights, momenta and batch norm's statistics stay in float32; convolutions and linear layers compute in half precision.
fp16 needs a gradient scaler, which skips steps whose gradients overflow; these steps are counted. Needs no torch.
Source: Micikevicius et al. 2018; torch.amp.
"""

from __future__ import annotations

from benchmark.plan.stage import Plan
from benchmark.plan.task import Config, HalfPrecision, Task
from methods.baseline import Baseline


class MixedPrecision(Config):
    """Train the model under autocast in `precision`, deploy it; other methods get the same stage by
    `base_precision`."""

    precision: HalfPrecision

    def plan(self, task: Task) -> Plan:
        """A baseline's plan. Raises ValueError where the task asks for another autocast."""
        if task.train_precision in ("bf16", "fp16"):
            raise ValueError(
                f"this method is compared with training in fp32 or tf32, but train_precision={task.train_precision} "
                "puts every method under autocast: leave train_precision out"
            )
        if task.base_precision not in (None, self.precision):
            raise ValueError(f"this method trains in {self.precision}: leave out base_precision={task.base_precision}")
        return Baseline().plan(task.model_copy(update={"base_precision": self.precision}))

    def check(self, task: Task) -> None:
        """Raise ValueError where the model cannot be built for the task's classes."""
        Baseline().check(task)
