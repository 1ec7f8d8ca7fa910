"""Post-training quantization: deploys a trained network in fewer bits. Needs no torch.

These are the paper's FP16 and INT8 rows. The network comes from plain training, or from another method (`start=`). INT8
needs scales, and the harness adds their calibration to every plan that asks for INT8 and has no scales. This method
uses that same stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.plan.stage import Plan, Precision
from benchmark.plan.task import Config, DeployPrecision, Task
from methods.start import start_of


class Quantization(Config):
    """Deploy the network of `start` (words of a method; None: plain training) in `precision`."""

    precision: DeployPrecision
    start: Mapping[str, Any] | None = None

    def plan(self, task: Task) -> Plan:
        """The plan of its start, deployed in `precision`. Raises ValueError where the task asks for another
        precision."""
        if task.deploy_precision not in (Task.model_fields["deploy_precision"].default, self.precision):
            raise ValueError(
                f"this method deploys {self.precision}: leave out deploy_precision={task.deploy_precision}"
            )
        before = start_of(self.start).plan(task)
        return Plan(steps=before.steps, network=before.network, deploy=Precision(self.precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where its start cannot be run."""
        start_of(self.start).check(task)
