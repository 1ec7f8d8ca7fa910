"""VID. Ahn et al.: Variational Information Distillation for Knowledge Transfer (CVPR 2019), equations 5 and 6."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.distillation.layers import full_precision, match
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term, middle

INITIAL_VARIANCE, LEAST_VARIANCE = 5.0, 1e-5


@full_precision
def negative_log_likelihood(mean: Tensor, log_scale: Tensor, teacher: Tensor) -> Tensor:
    """The mean of ((mean - teacher)^2 / v_c + log v_c) / 2 over maps [B, C, H, W], v = log(1 + exp(log_scale)) + 1e-5.

    The constant log(2 pi) / 2 is left out, so the value can be negative.
    """
    variance = (functional.softplus(log_scale) + LEAST_VARIANCE).view(1, -1, 1, 1)
    return 0.5 * ((mean - teacher).pow(2) / variance + variance.log()).mean()


class Regressor(nn.Module):
    """The Gaussian of a teacher's map given a student's: three 1x1 convolutions give its mean; a variance per
    channel."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 1, bias=False),
        )
        start = math.log(math.exp(INITIAL_VARIANCE - LEAST_VARIANCE) - 1)
        self.log_scale = nn.Parameter(torch.full((c_out,), start))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `negative_log_likelihood`; the larger map is pooled before the regression."""
        student, teacher = match(student, teacher)
        return negative_log_likelihood(self.mean(student), self.log_scale, teacher)


class VID(Term):
    """The sum over the stages. The variances decay with the optimiser's weight decay, as shipped."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()
        pairs = zip(middle(scene.student), middle(scene.teacher), strict=False)
        self.regressors = nn.ModuleList(Regressor(s[0], t[0]) for s, t in pairs)

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `Regressor`."""
        stages = zip(self.regressors, student.middle, teacher.middle, strict=False)
        return sum((regress(s, t) for regress, s, t in stages), student.logits.new_zeros(()))
