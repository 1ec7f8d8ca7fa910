"""CC. Peng et al.: Correlation Congruence for Knowledge Distillation (ICCV 2019), in the short form of its author."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term


@full_precision
def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """1/(B-1) sum_b <d_b, d_b+1> with d = |student - teacher| of embeddings [B, D].

    As shipped: not the kernels of the paper's equation 5, and dependent on the order within the batch.
    """
    difference = (student - teacher).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()


class CC(Term):
    """`correlation` of two linear embeddings of the pooled vectors.

    As shipped, the teacher's embedding trains too, and only by this term.
    """

    class Settings(Config):
        """`dimensions` of the embeddings."""

        dimensions: int = Field(default=128, gt=0)

    least_images = 2

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.embed_student = nn.Linear(scene.student[-1][0], settings.dimensions)
        self.embed_teacher = nn.Linear(scene.teacher[-1][0], settings.dimensions)

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `correlation`."""
        return correlation(self.embed_student(student.pooled), self.embed_teacher(teacher.pooled))
