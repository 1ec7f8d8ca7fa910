"""The teacher of a stage, which sees images normalised as in its own training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Network
from benchmark.plan.task import Task
from benchmark.vision.network import load
from benchmark.vision.teacher import Features, Teacher
from methods.distillation.objective import AnsweringTeacher


class Renormalised(nn.Module):
    """A teacher that takes images normalised by its student's recipe (`mean`, `std`), and normalises them by its
    own."""

    factor: Tensor
    shift: Tensor

    def __init__(self, teacher: Teacher, network: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.teacher = teacher
        ours, theirs = ((torch.tensor(m), torch.tensor(s)) for m, s in ((mean, std), (network.mean, network.std)))
        self.register_buffer("factor", (ours[1] / theirs[1])[:, None, None], persistent=False)
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1])[:, None, None], persistent=False)

    def logits(self, images: Tensor) -> Tensor:
        """See `Teacher.logits`."""
        return self.teacher.logits(images * self.factor + self.shift)

    def features(self, images: Tensor, preact: bool = False) -> Features:
        """See `Teacher.features`."""
        return self.teacher.features(images * self.factor + self.shift, preact)


def teacher_of(network: Network, task: Task) -> tuple[nn.Module, AnsweringTeacher]:
    """The teacher's network as it was trained, and its frozen copy that answers to the student's images.

    The published profile keeps every layer in its place; the fast profile folds batch norms.
    """
    module = load(network)
    teacher = Teacher(module, fold=task.profile == "fast")
    mean, std = task.recipe.mean, task.recipe.std
    if (tuple(network.mean), tuple(network.std)) == (mean, std):
        return module, teacher
    if task.recipe.cutout:
        raise ValueError(
            "set recipe.cutout=0: the teacher normalises images differently, and would see no zeros where they are cut"
        )
    return module, Renormalised(teacher, network, mean, std)
