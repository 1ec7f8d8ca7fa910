"""Experiments of distillation small enough for a test: resnet14 or resnet8 teaches resnet8 a few synthetic images."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from benchmark.plan import config
from benchmark.plan.config import Experiment, names
from benchmark.plan.task import Model, Task
from methods.distillation.plan import Distillation
from tests.harness.helpers import QUICK, tiny_experiment

NAMES = [name.rpartition("/")[2] for name in names("method") if name.startswith("distillation/")]
GLANCE = {**QUICK, "window_s": 0.01, "curve_window_s": 0.01, "warmup_cap_s": 0.02, "windows": 2, "batch_sizes": [1]}
ZOO = "benchmark.vision.models.repdistiller.resnet"


def network(name: str) -> Model:
    """A network of the zoo, by its short name."""
    return Model(name=f"repdistiller/{name}", builder=f"{ZOO}:{name}")


@cache
def _words(name: str) -> Any:
    return OmegaConf.to_container(config.compose([f"method=distillation/{name}"]), resolve=True)["method"]


def words(name: str, **changed) -> dict[str, Any]:
    """The `method:` block of a YAML, with values changed."""
    return {**_words(name), **changed}


def method(name: str, **changed) -> Distillation:
    """The method of a YAML."""
    return Distillation(**{k: v for k, v in words(name, **changed).items() if k not in ("_target_", "name")})


def learning(task: Task, student: str = "resnet8", teacher: str = "resnet8", **changed) -> Task:
    """The task with a student and a teacher of the zoo, trained by the recipe of the task both."""
    update = {"model": network(student), "teacher": network(teacher), "teacher_recipe": task.recipe}
    return Task.model_validate({**task.model_dump(), **update, **changed})


def experiment(root, name: str, **changed) -> Experiment:
    """A whole life of a method: two epochs of 40 images in batches of 16, the last of 8."""
    plain = tiny_experiment(
        root, GLANCE, scale={"name": "smoke", "train_images": 40, "test_images": 20, "max_epochs": 2}
    )
    recipe = plain.task.recipe.model_copy(update={"batch_size": 16, "lr": 0.01})
    task = learning(plain.task.model_copy(update={"recipe": recipe}))
    return plain.model_copy(update={"method": words(name, **changed), "task": task})
