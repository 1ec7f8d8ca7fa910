"""Distillation as a plan: a teacher, an initial stage (if any), and the student's training. Needs no torch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Recipe, Task
from methods.baseline import check_builds, plain, teacher_task, teacher_training
from methods.distillation.params import Choice, Distilling, Preparing


class Distillation(Choice):
    """Train a teacher, then its student by the labels and the teacher's answers; deploy the student.

    `variant=as_shipped` computes what RepDistiller computes; `no_waste` leaves out unused computations. The initial
    stage takes a share `initial_epochs` of the student's epochs, at least one, at a constant rate. This rate is the
    first of `initial_lr` whose pattern fits the student's name, or else the rate of the student's recipe. At smoke
    scale it is `initial_lr_smoke`, where given, because the teacher is untrained there.
    """

    variant: Literal["as_shipped", "no_waste"] = "as_shipped"
    initial_epochs: float = Field(default=0.125, gt=0)
    initial_lr: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    initial_lr_smoke: float | None = Field(default=None, gt=0)

    def plan(self, task: Task) -> Plan:
        """The teacher's training, the initial stage (if any), and distillation.

        The teacher's training is that of its baseline. The student starts from the first weights of its own baseline,
        or from the initial stage's network.
        """
        teacher = teacher_training(task)
        inputs, steps = {"teacher": teacher}, [(Phase.BASE, teacher)]
        choice, student, no_waste = self._for(task), plain(task), self.variant == "no_waste"
        first_epoch = 0
        if choice.initial is not None:
            recipe = self._initial_recipe(task)
            params = Preparing(
                task=student.model_copy(update={"recipe": recipe}), term=choice.initial, no_waste=no_waste
            )
            initial = Stage("methods.distillation.stages:initial", params, dict(inputs))
            inputs["initial"], first_epoch = initial, recipe.epochs
            steps.append((Phase.RETRAIN, initial))
        main = Distilling(
            task=student, term=choice.term, weights=choice.weights, no_waste=no_waste, first_epoch=first_epoch
        )
        distilled = Stage("methods.distillation.stages:distil", main, inputs)
        steps.append((Phase.RETRAIN, distilled))
        return Plan(steps=tuple(steps), network=distilled, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where a network cannot be built, or the method does not fit the pair or the recipe.

        A rehearsal on the meta device shows this.
        """
        if task.recipe.label_smoothing:
            raise ValueError(
                f"recipe.label_smoothing={task.recipe.label_smoothing:g}: distillation already adds soft labels to "
                "the plain ones: use recipe.label_smoothing=0"
            )
        for network in (task, teacher_task(task)):
            check_builds(network)
        from methods.distillation.wiring import rehearse_pair  # here, not above: planning must not pay for torch

        rehearse_pair(self._for(task), task, task.train_images)

    def _for(self, task: Task) -> Choice:
        assert task.teacher is not None, "teacher_training has refused a task without a teacher"
        return self.for_pair(_short(task.teacher.name), _short(task.model.name))

    def _initial_recipe(self, task: Task) -> Recipe:
        """The student's recipe at a constant rate and a share of its length; it is tested only at the end."""
        recipe = task.recipe
        epochs = max(1, round(self.initial_epochs * recipe.epochs))
        update = {
            "name": f"{recipe.name}-initial",
            "epochs": epochs,
            "lr": self._initial_rate(task),
            "schedule": "constant",
            "warmup_epochs": 0,
            "test_every": epochs,
        }
        return recipe.model_copy(update=update)

    def _initial_rate(self, task: Task) -> float:
        if task.scale.name == "smoke" and self.initial_lr_smoke is not None:
            return self.initial_lr_smoke
        fits = (rate for name, rate in self.initial_lr.items() if fnmatchcase(_short(task.model.name), name))
        return next(fits, task.recipe.lr)


def _short(model: str) -> str:
    """`vgg13` from `repdistiller/vgg13`, as in the names of pairs.

    A network of another family keeps its full name: it is a different network, and nothing was tuned for it.
    """
    family, _, name = model.rpartition("/")
    return name if family == "repdistiller" else model
