"""Common code of methods that continue with a trained network: the steps and epochs so far. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmark.plan.stage import Phase, Plan, Stage
from benchmark.plan.task import Effort, Given, Params, Recipe, Task


class Continued(Params):
    """Parameters of a stage that comes after `first_epoch` epochs of earlier stages.

    Its random draws (order of the images, crops, flips) continue those of the earlier stages and do not repeat them.
    `trains` says whether the stage itself trains the epochs of its task's recipe.
    """

    trains: ClassVar[bool] = True
    task: Task
    first_epoch: int = 0

    def effort(self, given: Given) -> Effort | None:
        """The epochs of the recipe, where the stage trains them."""
        return Effort((self.task.training(),)) if self.trains else None


class FineTuning(Continued):
    """Parameters of `methods.stages:finetune`. The recipe of `task` is that of the fine-tuning."""


@dataclass
class Way:
    """The steps of a plan so far, and the stage whose network the next step continues with."""

    steps: list[tuple[Phase, Stage]]
    network: Stage

    @classmethod
    def after(cls, plan: Plan) -> Way:
        """The steps of another method's plan."""
        return cls(list(plan.steps), plan.network)

    def go(self, phase: Phase, stage: Stage) -> None:
        """Add a step."""
        self.steps.append((phase, stage))
        self.network = stage

    def epochs(self) -> int:
        """The number of epochs trained by all these steps; their random draws must not be repeated."""
        done = [_epochs(stage) for _, stage in self.steps]
        if not any(done):
            raise ValueError(
                "no step says how long it trains (in its task's recipe), so no further training can follow"
            )
        return max(done)


def with_recipe(task: Task, recipe: Recipe) -> Task:
    """The task with another recipe."""
    return task.model_copy(update={"recipe": recipe})


def finetuning(task: Task, epochs: int, lr: float) -> Recipe:
    """The task's recipe with a fine-tuning's rate and length; batch, decay, augmentation and constants stay.

    The rate drops tenfold at one half and at three quarters of this length.
    """
    longest = task.scale.max_epochs
    update = {
        "epochs": epochs if longest is None else min(epochs, longest),
        "lr": lr,
        "name": f"{task.recipe.name}-finetune",
        "schedule": "multistep",
        "milestones": (0.5, 0.75),
        "gamma": 0.1,
    }
    return task.recipe.model_copy(update=update)


def _epochs(stage: Stage) -> int:
    """The epochs before a stage plus its own, from its parameters; 0 where these say nothing about a training."""
    task = getattr(stage.params, "task", None)
    if not isinstance(task, Task) or not getattr(stage.params, "trains", True):
        return 0
    return int(getattr(stage.params, "first_epoch", 0)) + task.recipe.epochs
