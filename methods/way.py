"""What methods share that go on with a trained network: their steps so far, and how long has been trained. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmark.plan.stage import Phase, Plan, Stage
from benchmark.plan.task import Params, Recipe, Task


class Continued(Params):
    """Parameters of a stage that goes on after `first_epoch` epochs of earlier ones: its draws (order of the images,
    crops, flips) are theirs continued, not repeated.

    `trains` says whether the stage takes the epochs of its task's recipe.
    """

    trains: ClassVar[bool] = True
    task: Task
    first_epoch: int = 0


class FineTuning(Continued):
    """Parameters of `methods.stages:finetune`. The recipe of `task` is that of the fine-tuning."""


@dataclass
class Way:
    """The steps of a plan so far, and the stage whose network the next one goes on with."""

    steps: list[tuple[Phase, Stage]]
    network: Stage

    @classmethod
    def after(cls, plan: Plan) -> Way:
        """The way that another method's plan has gone."""
        return cls(list(plan.steps), plan.network)

    def go(self, phase: Phase, stage: Stage) -> None:
        """Take one step more."""
        self.steps.append((phase, stage))
        self.network = stage

    def epochs(self) -> int:
        """The epochs that have been trained when all these steps are done, whoever trained: the draws of none of them
        may be repeated."""
        done = [_epochs(stage) for _, stage in self.steps]
        if not any(done):
            raise ValueError("no step says how long it trains (its task's recipe): nothing can train on after them")
        return max(done)


def with_recipe(task: Task, recipe: Recipe) -> Task:
    """The task, trained otherwise."""
    return task.model_copy(update={"recipe": recipe})


def finetuning(task: Task, epochs: int, lr: float) -> Recipe:
    """The task's recipe at a fine-tuning's rate and length; batch, decay, augmentation and constants stay. Tenfold
    drops at one half and three quarters of its own length."""
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
    """The epochs behind a stage and its own, by its parameters; 0 where it says nothing of a training."""
    task = getattr(stage.params, "task", None)
    if not isinstance(task, Task) or not getattr(stage.params, "trains", True):
        return 0
    return int(getattr(stage.params, "first_epoch", 0)) + task.recipe.epochs
