"""DIST. Huang et al.: Knowledge Distillation from a Stronger Teacher (NeurIPS 2022), equations 7 to 10."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term, View

EPS = 1e-8


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """The mean correlation of the rows of x and y [n, d].

    A constant row counts 0, because 1e-8 is added to the product of the norms.
    """
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    correlations: Tensor = (x * y).sum(1) / (norms + EPS)
    return correlations.mean()


@full_precision
def relations(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """1 - correlation of the softened probabilities of logits [B, K]: over classes (inter), and over the batch for
    each class (intra)."""
    q, p = functional.softmax(student / temperature, 1), functional.softmax(teacher / temperature, 1)
    return 1 - pearson(q, p), 1 - pearson(q.mT, p.mT)


class DIST(Term):
    """T^2 (beta inter + gamma intra). The factor T^2 is in the authors' code, not in the paper's listing."""

    class Settings(Config):
        """The weights of the two parts and the temperature (the paper's tau)."""

        beta: float = Field(default=1, ge=0)
        gamma: float = Field(default=1, ge=0)
        temperature: float = Field(default=4, gt=0)

    student_view = teacher_view = View.LOGITS

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature = settings.beta, settings.gamma, settings.temperature

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `relations`."""
        inter, intra = relations(student.logits, teacher.logits, self.temperature)
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)
