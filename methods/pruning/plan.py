"""Filter pruning as a plan: base training, masks, fine-tuning and a physically smaller network. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Recipe, Task
from methods.baseline import plain
from methods.pruning.params import (
    Backend,
    Choice,
    ExtraTraining,
    FunctionName,
    LayerSet,
    Masking,
    Mode,
    Scoring,
    Shrinking,
)
from methods.start import start_of
from methods.way import FineTuning, Way, finetuning, with_recipe


class Pruning(Config):
    """Train, remove a share of the filters of every chosen convolution, fine-tune, deploy the smaller network.

    `criterion` is a function `module:function` like those in `methods.pruning.criteria`, and `settings` are its
    settings. Planning imports no criterion, so two facts are stated beside its name: whether it looks at
    `statistics_batches` training steps, and what its `extra_epochs` train (the masked network, the dense one, nothing).
    `nni_pruner` makes NNI's pruner of the same rule, where there is one.

    `finetune=masked` trains the dense network with its filters masked, at full training cost, and shrinks it
    afterwards; `shrink_first` trains the smaller network. `schedule=agp` reaches the sparsity in steps, training after
    each.

    `start` is the block of another method whose network is pruned instead of the base training's. Fine-tuning is always
    plain training.
    """

    criterion: FunctionName
    settings: dict[str, bool | int | float | str] = Field(default={})
    looks_at_data: bool = False
    extra_training: Literal["none", "masked", "dense"] = "none"
    nni_pruner: FunctionName | None = None
    backend: Backend = "native"
    layers: LayerSet = "all"
    sparsity: float = Field(default=0.5, gt=0, lt=1)
    mode: Mode = "independent"
    finetune: Literal["masked", "shrink_first"] = "masked"
    finetune_epochs: int = Field(default=20, ge=0)
    finetune_lr: float = Field(default=0.01, gt=0)
    extra_epochs: int = Field(default=1, ge=0)
    schedule: Literal["one_shot", "agp"] = "one_shot"
    agp_iterations: int = Field(default=10, ge=1)
    agp_epochs: int = Field(default=16, ge=1)
    statistics_batches: int = Field(default=1, ge=1)
    start: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Pruning:
        if self.backend == "nni" and self.nni_pruner is None:
            raise ValueError(
                f"backend=nni has no pruner for {self.criterion} (its YAML names no nni_pruner): use backend=native"
            )
        if self.schedule == "agp" and self.backend == "nni":
            raise ValueError("schedule=agp needs backend=native: NNI would bring removed filters back")
        return self

    def plan(self, task: Task) -> Plan:
        """Base training (or the steps of `start`), masks, then fine-tuning and shrinking in the chosen order.

        Criteria that look at data also have an extra epoch.
        """
        way = Way.after(start_of(self.start).plan(task))
        own = plain(task)
        if self.schedule == "one_shot":
            self._mask_at_once(own, way)
        else:
            self._mask_gradually(own, way)
        if self.finetune == "shrink_first":
            self._shrink(own, way)
        if self.finetune_epochs:
            self._finetune(own, way, finetuning(own, self.finetune_epochs, self.finetune_lr))
        if self.finetune == "masked":
            self._shrink(own, way)
        return Plan(steps=tuple(way.steps), network=way.network, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where the model cannot be built, or a rehearsal on the meta device shows it cannot be
        pruned."""
        start_of(self.start).check(task)
        if self.looks_at_data:
            batches = math.ceil(task.train_images / task.recipe.batch_size)
            if self.statistics_batches > batches:
                raise ValueError(f"statistics_batches={self.statistics_batches}: an epoch has {batches} batches")
        from methods.pruning.rehearsal import rehearse, rehearse_with_nni  # here: planning must not pay for torch

        choice = self.choice(self.sparsity)
        rehearse(task.model, task.data.classes, choice)
        if choice.nni_pruner is not None:
            rehearse_with_nni(task, choice)

    def choice(self, sparsity: float) -> Choice:
        """Which filters are removed at a sparsity.

        Settings that the criterion or the backend does not read are left out, so that they are in no key.
        """
        batches = self.statistics_batches if self.looks_at_data else 0
        return Choice(
            scoring=Scoring(criterion=self.criterion, settings=self.settings, batches=batches),
            sparsity=sparsity,
            layers=self.layers,
            mode=self.mode,
            nni_pruner=self.nni_pruner if self.backend == "nni" else None,
        )

    # --- stages: each goes on with the network of the way so far ------------------------------------------------

    def _mask_at_once(self, task: Task, way: Way) -> None:
        trained = way.network
        self._mask(task, way, self.sparsity)
        if not self.extra_epochs or self.extra_training == "none":
            return
        masked = way.network
        recipe = self._constant(task, self.extra_epochs)
        dense = self.extra_training == "dense"
        params = ExtraTraining(task=with_recipe(task, recipe), first_epoch=way.epochs(), masked=not dense)
        inputs = {"masked": masked, "trained": trained} if dense else {"masked": masked}
        way.go(Phase.COMPRESS, Stage("methods.pruning.stages:extra_epochs", params, inputs))

    def _mask_gradually(self, task: Task, way: Way) -> None:
        for sparsity in agp(self.sparsity, self.agp_iterations):
            self._mask(task, way, sparsity)
            self._finetune(task, way, self._constant(task, self.agp_epochs))

    def _mask(self, task: Task, way: Way, sparsity: float) -> None:
        trained, epochs = way.network, 0
        if self.looks_at_data:  # other criteria take no training step, so their masks do not depend on the rate
            task, epochs = with_recipe(task, self._constant(task, 1)), way.epochs()
        params = Masking(task=task, choice=self.choice(sparsity), first_epoch=epochs)
        way.go(Phase.COMPRESS, Stage("methods.pruning.stages:mask", params, {"trained": trained}))

    def _shrink(self, task: Task, way: Way) -> None:
        params = Shrinking(task=task, backend=self.backend)
        way.go(Phase.COMPRESS, Stage("methods.pruning.stages:shrink", params, {"masked": way.network}))

    def _finetune(self, task: Task, way: Way, recipe: Recipe) -> None:
        params = FineTuning(task=with_recipe(task, recipe), first_epoch=way.epochs())
        way.go(Phase.RETRAIN, Stage("methods.pruning.stages:finetune", params, {"pruned": way.network}))

    def _constant(self, task: Task, epochs: int) -> Recipe:
        return finetuning(task, epochs, self.finetune_lr).model_copy(update=_unscheduled(task))


def _unscheduled(task: Task) -> dict[str, Any]:
    """A constant rate; settings that it does not read stay as in the task's recipe, so that keys do not change."""
    recipe = task.recipe
    return {"schedule": "constant", "milestones": recipe.milestones, "gamma": recipe.gamma}


def agp(final: float, iterations: int) -> Iterator[float]:
    """The sparsity of every iteration of automated gradual pruning, as NNI starts it: 0 first, `final` last.

    s_k = final (1 - (1 - k / (iterations - 1))^3). Source: Zhu and Gupta 2017, equation 1.
    """
    for k in range(iterations - 1):
        yield final * (1 - (1 - k / (iterations - 1)) ** 3)
    yield final
