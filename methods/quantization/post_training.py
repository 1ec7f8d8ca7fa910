"""Post-training quantization: another network, deployed in fewer bits. Torch-free.

The paper's FP16 and INT8 rows. The network is trained plainly, or by another method (`start=`); INT8 needs scales, and
the harness adds their calibration to every plan that asks for INT8 without any: this method's stage is that very one.
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
        """The plan of what it starts from, deployed otherwise. Raises ValueError where the task asks for a third."""
        if task.deploy_precision not in (Task.model_fields["deploy_precision"].default, self.precision):
            raise ValueError(f"it deploys {self.precision}: leave out deploy_precision={task.deploy_precision}")
        before = start_of(self.start).plan(task)
        return Plan(steps=before.steps, network=before.network, deploy=Precision(self.precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where what it starts from cannot be worked."""
        start_of(self.start).check(task)
