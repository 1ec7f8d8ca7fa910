"""AT. Zagoruyko, Komodakis: Paying More Attention to Attention (ICLR 2017), equation 2 with p = 2."""

from __future__ import annotations

from torch import Tensor

from methods.distillation.layers import full_precision, match, square_map
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term


@full_precision
def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of the attention maps of [B, C, H, W], both of unit norm.

    As shipped: the larger map is pooled before it is squared, and the mean is over B x HW.
    """
    student, teacher = match(student, teacher)
    return (square_map(student) - square_map(teacher)).pow(2).mean()


class AT(Term):
    """The sum of `attention` over the stages. Lists of unequal length are paired from the finest on, as shipped."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `attention`."""
        pairs = zip(student.middle, teacher.middle, strict=False)
        return sum((attention(s, t) for s, t in pairs), student.logits.new_zeros(()))
