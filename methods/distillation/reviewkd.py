"""ReviewKD. Chen et al.: Distilling Knowledge via Knowledge Review (CVPR 2021), equations 5 to 7."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Shape, Term, View, same_length

WIDEST = 512
"""The largest number of channels of a fusion; a constant in the authors' code."""


class ABF(nn.Module):
    """Attention-based fusion of a level with the residual of the coarser level.

    The student's map [C_s, h, h] is convolved to `mid` channels, fused with the residual by two sigmoids (no softmax),
    resized to the teacher's size and convolved to its channels. Every resize takes the nearest element.
    """

    def __init__(self, student: Shape, teacher: Shape, mid: int, fuse: bool) -> None:
        super().__init__()
        self.size = teacher[1]
        self.reduce = nn.Sequential(nn.Conv2d(student[0], mid, 1, bias=False), nn.BatchNorm2d(mid))
        self.attention = nn.Conv2d(2 * mid, 2, 1) if fuse else None
        self.expand = nn.Sequential(nn.Conv2d(mid, teacher[0], 3, padding=1, bias=False), nn.BatchNorm2d(teacher[0]))
        for layer in (self.reduce[0], self.expand[0]):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type] # a sequence gives plain modules

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """The level's output in the teacher's shape, and the residual for the finer level."""
        fused: Tensor = self.reduce(x)
        if self.attention is not None:
            assert residual is not None, "only the coarsest level has no residual"
            residual = functional.interpolate(residual, size=x.shape[2:], mode="nearest")
            weights = torch.sigmoid(self.attention(torch.cat([fused, residual], 1)))
            fused = fused * weights[:, :1] + residual * weights[:, 1:]
        if fused.shape[2] != self.size:
            fused = functional.interpolate(fused, size=(self.size, self.size), mode="nearest")
        return self.expand(fused), fused


@full_precision
def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL: a weighted mean of the mean squared differences of maps [B, C, h, h], unpooled and pooled to 4, 2 and 1.

    Only sizes below h are used. Each weight is half of the one before, and the sum is divided by the sum of the
    weights.
    """
    value, weight, total = functional.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size >= student.shape[2]:
            continue
        weight /= 2
        ours, theirs = (functional.adaptive_avg_pool2d(x, (size, size)) for x in (student, teacher))
        value = value + weight * functional.mse_loss(ours, theirs)
        total += weight
    return value / total


def levels(features: list[Tensor]) -> list[Tensor]:
    """f[1..-2] and the pooled vector as a map of one pixel, finest first."""
    return [*features[1:-1], features[-1][:, :, None, None]]


class ReviewKD(Term):
    """The sum of `hierarchical` over the levels: the student's maps after fusion, the teacher's before activation."""

    student_view, teacher_view = View.FEATURES, View.PREACTIVATIONS
    least_images = 2  # because of batch normalisation of a single pixel

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()
        same_length(scene)
        ours, theirs = ([*s[1:-1], (*s[-1], 1, 1)] for s in (scene.student, scene.teacher))
        mid, coarsest = min(WIDEST, ours[-1][0]), len(ours) - 1
        self.fusions = nn.ModuleList(
            ABF(s, t, mid, fuse=level < coarsest) for level, (s, t) in enumerate(zip(ours, theirs, strict=True))
        )

    def review(self, features: list[Tensor]) -> list[Tensor]:
        """The fused levels of a student's features, finest first."""
        outputs: list[Tensor] = []
        residual: Tensor | None = None
        for fusion, x in zip(reversed(self.fusions), reversed(levels(features)), strict=True):
            output, residual = fusion(x, residual)
            outputs.insert(0, output)
        return outputs

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `hierarchical`."""
        pairs = zip(self.review(student.features), levels(teacher.features), strict=True)
        return sum((hierarchical(s, t) for s, t in pairs), student.logits.new_zeros(()))
