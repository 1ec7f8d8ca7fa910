"""DKD. Zhao et al.: Decoupled Knowledge Distillation (CVPR 2022), equations 6 and 7."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term, View

FAR = 1000.0
"""Subtracted from the target's softened logit, so that its probability is exactly zero."""


def targets(labels: Tensor, classes: int) -> Tensor:
    """True at the label, bool [B, classes]. (`functional.one_hot` would wait for the device to find the largest
    label.)"""
    return labels[:, None] == torch.arange(classes, device=labels.device)


@full_precision
def target_class(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD: T^2/B times the divergence of (target, all others) of logits [B, K].

    The second entry is the sum of the other probabilities: 1 - p would lose all digits where the teacher is certain.
    """
    chosen = targets(labels, student.shape[1])
    value = student.new_zeros(())
    p, q = functional.softmax(teacher / temperature, 1), functional.softmax(student / temperature, 1)
    for part in (chosen, ~chosen):
        p_part, q_part = (p * part).sum(1), (q * part).sum(1)
        value = value + functional.kl_div(q_part.log(), p_part, reduction="sum")
    return value * (temperature**2 / len(student))


@full_precision
def other_classes(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD: T^2/B times the divergence among the classes that are not the target, of logits [B, K]."""
    away = FAR * targets(labels, student.shape[1])
    log_q = functional.log_softmax(student / temperature - away, 1)
    p = functional.softmax(teacher / temperature - away, 1)
    return functional.kl_div(log_q, p, reduction="sum") * (temperature**2 / len(student))


class DKD(Term):
    """alpha TCKD + beta NCKD. The target is the label, also where the teacher is wrong."""

    class Settings(Config):
        """The weights of the two parts and the temperature."""

        alpha: float = Field(default=1, ge=0)
        beta: float = Field(default=8, ge=0)
        temperature: float = Field(default=4, gt=0)

    student_view = teacher_view = View.LOGITS

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = settings.alpha, settings.beta, settings.temperature

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `target_class` and `other_classes`."""
        given = student.logits, teacher.logits, batch.labels, self.temperature
        return self.alpha * target_class(*given) + self.beta * other_classes(*given)
