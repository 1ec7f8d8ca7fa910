"""NST. Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer (2017), equation 10."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from methods.distillation.layers import full_precision, inner_products, match
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term


def kernel(x: Tensor, y: Tensor, broadcast: bool) -> Tensor:
    """The mean of <x_i, y_j>^2 over B, i and j of vectors x [B, n, d] and y [B, m, d]: degree two, no constant.

    With `broadcast` it computes as the original does, with a tensor of B n m d elements. Otherwise it uses the smaller
    batched product: where d is less than n and m, sum_ij <x_i, y_j>^2 = <X^T X, Y^T Y> with two d x d matrices.
    """
    batch, n, d = x.shape
    m = y.shape[1]
    if broadcast or d >= min(n, m):
        return inner_products(x, y, broadcast).pow(2).mean()
    return ((x.mT @ x) * (y.mT @ y)).sum() / (batch * n * m)


@full_precision
def selectivity(student: Tensor, teacher: Tensor, broadcast: bool) -> Tensor:
    """k(T, T) + k(S, S) - 2 k(S, T) of maps [B, C, H, W].

    Each channel is a vector of unit norm over HW; the larger map is pooled.
    """
    student, teacher = match(student, teacher)
    s, t = functional.normalize(student.flatten(2), dim=2), functional.normalize(teacher.flatten(2), dim=2)
    return kernel(t, t, broadcast) + kernel(s, s, broadcast) - 2 * kernel(s, t, broadcast)


class NST(Term):
    """The sum of `selectivity` over the stages. Lists of unequal length are paired from the finest on, as shipped."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()
        self.broadcast = scene.published

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `selectivity`."""
        pairs = zip(student.middle, teacher.middle, strict=False)
        return sum((selectivity(s, t, self.broadcast) for s, t in pairs), student.logits.new_zeros(()))
