"""PKT. Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer (ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term

EPS = 1e-7


def affinities(x: Tensor) -> Tensor:
    """The conditional probabilities [B, B] of rows x [B, D]: cosines shifted to [0, 1], each row divided by its sum."""
    # the norm's gradient at a vector of zeros is 0 here; written out as in the original it would be NaN
    unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPS)
    unit = torch.where(unit.isnan(), 0.0, unit)
    cosines = (unit @ unit.mT + 1) / 2
    return cosines / cosines.sum(1, keepdim=True)


@full_precision
def transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean of P log((P + 1e-7) / (Q + 1e-7)) over B^2 entries, P of the teacher's rows, Q of the student's.

    As shipped a mean, not the divergence's sum: hence the large weight.
    """
    q, p = affinities(student), affinities(teacher)
    return (p * ((p + EPS) / (q + EPS)).log()).mean()


class PKT(Term):
    """`transfer` of the pooled vectors."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `transfer`."""
        return transfer(student.pooled, teacher.pooled)
