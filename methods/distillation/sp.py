"""SP. Tung, Mori: Similarity-Preserving Knowledge Distillation (ICCV 2019), equations 2 to 4."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term


@full_precision
def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_t - G_s||_F^2 / B^2 of maps [B, ...], where G holds the inner products of the images, with rows of unit norm.

    The two maps may have any shapes. As shipped the value has shape [1]; here it is a scalar.
    """
    ours, theirs = (functional.normalize(x @ x.mT) for x in (student.flatten(1), teacher.flatten(1)))
    return (theirs - ours).pow(2).mean()


class SP(Term):
    """`similarity` of the last maps."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `similarity`."""
        return similarity(student.middle[-1], teacher.middle[-1])
