"""Low-rank factorization as a plan: base training, factors in place of layers, fine-tuning. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Effort, Given, Params, Task
from methods.baseline import plain
from methods.start import start_of
from methods.way import FineTuning, Way, finetuning, with_recipe


class Factoring(Params):
    """Parameters of `methods.factorization.stages:factor`: ranks by kept `energy`, or by the share `macs`."""

    trains: ClassVar[bool] = False
    task: Task
    energy: float | None = None
    macs: float | None = None

    def effort(self, given: Given) -> Effort:
        """Singular values of every layer."""
        return Effort(seconds=5)


class LowRank(Config):
    """Train, replace layers by products of smaller ones, fine-tune, deploy the factored network.

    `energy` is the share of the squared singular values that every unfolding of a weight keeps. `macs`, where given, is
    the share of the network's multiply-accumulates that may be left, and decides `energy`. Layers whose factors would
    cost more stay as they are. `start` is the block of another method whose network is factored.
    """

    energy: float = Field(default=0.9, gt=0, lt=1)
    macs: float | None = Field(default=None, gt=0, lt=1)
    finetune_epochs: int = Field(default=20, ge=0)
    finetune_lr: float = Field(default=0.01, gt=0)
    start: Mapping[str, Any] | None = None

    def plan(self, task: Task) -> Plan:
        """Base training (or the steps of `start`), the factors, fine-tuning."""
        way, own = Way.after(start_of(self.start).plan(task)), plain(task)
        params = Factoring(task=own, energy=self.energy if self.macs is None else None, macs=self.macs)
        way.go(Phase.COMPRESS, Stage("methods.factorization.stages:factor", params, {"trained": way.network}))
        if self.finetune_epochs:
            recipe = finetuning(own, self.finetune_epochs, self.finetune_lr)
            tuning = FineTuning(task=with_recipe(own, recipe), first_epoch=way.epochs())
            way.go(Phase.RETRAIN, Stage("methods.stages:finetune", tuning, {"given": way.network}))
        return Plan(steps=tuple(way.steps), network=way.network, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where the start cannot be run, or the model could not shrink that far."""
        start_of(self.start).check(task)
        import torch  # here, not above: planning must not pay for torch

        from benchmark.vision.network import build_model
        from methods.factorization.layers import check_target

        with torch.device("meta"):
            network = build_model(task.model, task.data.classes)
        try:
            check_target(network, self.macs)
        except ValueError as error:
            raise ValueError(f"model {task.model.name} cannot be factored with these settings: {error}") from error
