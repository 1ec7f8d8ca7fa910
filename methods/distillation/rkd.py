"""RKD. Park et al.: Relational Knowledge Distillation (CVPR 2019), equations 5 to 9."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term


def distances(x: Tensor) -> Tensor:
    """The Euclidean distances of rows x [B, D], in units of their mean over distinct rows: [B, B], zero diagonal.

    Squares are at least 1e-12, so every distinct pair counts in the mean, even a pair of equal rows. Distances are
    computed from differences, which `angles` needs anyway. A matrix product would suffer from cancellation, and in TF32
    would lose a tenth of the distance of similar rows.
    """
    apart = (x[:, None] - x[None]).pow(2).sum(2).clamp(min=1e-12).sqrt()
    apart = apart.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), 0)
    return apart / (apart.sum() / (len(x) * (len(x) - 1)))


def angles(x: Tensor) -> Tensor:
    """The cosines <e_ij, e_ik>, where e_ij is the unit vector from row i of x [B, D] to row j: [B, B, B]."""
    directions = functional.normalize(x[None] - x[:, None], dim=2)
    return directions @ directions.mT


@full_precision
def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The smooth L1 difference of `distances`, mean over all B^2 entries."""
    return functional.smooth_l1_loss(distances(student), distances(teacher))


@full_precision
def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The smooth L1 difference of `angles`, mean over all B^3 entries."""
    return functional.smooth_l1_loss(angles(student), angles(teacher))


class RKD(Term):
    """Weighted distances and angles of the pooled vectors."""

    class Settings(Config):
        """The weights of the two parts."""

        distance: float = Field(default=25, ge=0)
        angle: float = Field(default=50, ge=0)

    least_images = 2

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.distance, self.angle = settings.distance, settings.angle

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `distance_loss` and `angle_loss`."""
        apart = distance_loss(student.pooled, teacher.pooled)
        return self.distance * apart + self.angle * angle_loss(student.pooled, teacher.pooled)
