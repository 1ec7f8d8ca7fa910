"""A method for tests: train, look at something (numbers and details alone), train on by it."""

from __future__ import annotations

from benchmark.plan.stage import Bench, Output, Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Params, Task
from methods.baseline import base_training, teacher_training


class Looking(Params):
    """Parameters of `look`."""


class Using(Params):
    """Parameters of `use`."""

    factor: float = 1.0


class TwoSteps(Config):
    """Train, look, use what was seen."""

    factor: float = 1.0

    def plan(self, task: Task) -> Plan:
        base = base_training(task)
        looked = Stage("tests.harness.two_steps:look", Looking(), {"trained": base})
        used = Stage("tests.harness.two_steps:use", Using(factor=self.factor), {"trained": base, "looked": looked})
        steps = ((Phase.BASE, base), (Phase.COMPRESS, looked), (Phase.RETRAIN, used))
        return Plan(steps=steps, network=used, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        if self.factor < 0:
            raise ValueError(f"factor={self.factor} makes no sense here")


class Learner(Config):
    """Train a teacher, use it."""

    def plan(self, task: Task) -> Plan:
        teacher = teacher_training(task)
        used = Stage("tests.harness.two_steps:use", Using(), {"trained": teacher, "looked": teacher})
        steps = ((Phase.BASE, teacher), (Phase.RETRAIN, used))
        return Plan(steps=steps, network=used, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Nothing to refuse."""


LOOKED: list[str] = []
"""What `look` was called for; a test empties it."""


def look(bench: Bench, params: Looking, trained: Output) -> Output:
    LOOKED.append("look")
    return Output(values={"seen": 3.0}, details={"genotype": [["conv", 1], ["skip", 2]]})


def use(bench: Bench, params: Using, trained: Output, looked: Output) -> Output:
    assert looked.details["genotype"] == [["conv", 1], ["skip", 2]]
    assert looked.values["seen"] == 3.0
    return Output(network=trained.network, values={"acc_pct": trained.values["acc_pct"], "params": 1, "macs": 1})
