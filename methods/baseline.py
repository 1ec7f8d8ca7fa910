"""Plain training, the life cycle that every other method is compared with. Needs no torch."""

from __future__ import annotations

from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Effort, Given, HalfPrecision, Params, Task


class Training(Params):
    """Parameters of `methods.training:train`; `autocast` is its half precision, None the task's own precision."""

    task: Task
    autocast: HalfPrecision | None = None

    def effort(self, given: Given) -> Effort:
        """The epochs of the recipe."""
        return Effort((self.task.training(),))


class Baseline(Config):
    """Train the model, deploy it."""

    def plan(self, task: Task) -> Plan:
        """One stage: base training."""
        base = base_training(task)
        return Plan(steps=((Phase.BASE, base),), network=base, deploy=Precision(task.deploy_precision))

    def check(self, task: Task) -> None:
        """Raise ValueError where the model cannot be built for the task's classes."""
        check_builds(task)


def base_training(task: Task) -> Stage:
    """The training of `task.model` from scratch, under autocast where `task.base_precision` asks for it.

    It is the same stage, with the same key, in every method that starts from it.
    """
    return Stage("methods.training:train", Training(task=plain(task), autocast=task.base_precision))


def plain(task: Task) -> Task:
    """The task without the fields that do not affect the training of its own network.

    Parameters of stages hold this task, so that a teacher, or the precision of another stage, does not change their
    keys.
    """
    return task.model_copy(
        update={
            "teacher": None,
            "teacher_recipe": None,
            "teacher_seed": None,
            "base_precision": None,
            "deploy_precision": Task.model_fields["deploy_precision"].default,
            "calibration": Task.model_fields["calibration"].default,
            "data": task.data.model_copy(update={"search": type(task.data).model_fields["search"].default}),
        }
    )


def teacher_training(task: Task) -> Stage:
    """The training of `task.teacher`, run once for all its students.

    It is the same stage as in a baseline with that model, its recipe and the teacher's seed. Raises ValueError where
    the task has no teacher.
    """
    return base_training(teacher_task(task))


def teacher_task(task: Task) -> Task:
    """The task of the teacher's baseline. Raises ValueError where there is no teacher."""
    if task.teacher is None or task.teacher_recipe is None:
        raise ValueError("there is no teacher to learn from: give pair= or teacher=")
    seed = task.seed if task.teacher_seed is None else task.teacher_seed
    return task.model_copy(update={"model": task.teacher, "recipe": task.teacher_recipe, "seed": seed})


def check_builds(task: Task) -> None:
    """Rehearse the training of the task's model on the meta device. Raises ValueError with the cause."""
    from benchmark.vision.rehearsal import rehearse  # here, not above: planning must not pay for torch

    rehearse(task)
