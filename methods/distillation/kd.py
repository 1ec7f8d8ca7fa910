"""KD. Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (2015)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from benchmark.plan.task import Config
from methods.distillation.layers import full_precision
from methods.distillation.term import Answers, Batch, Scene, Term, View


@full_precision
def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2/B sum_bk p_bk (log p_bk - log q_bk) of logits [B, K], p = softmax(teacher/T), q = softmax(student/T)."""
    log_q = functional.log_softmax(student / temperature, 1)
    p = functional.softmax(teacher / temperature, 1)
    return functional.kl_div(log_q, p, reduction="sum") * (temperature**2 / len(student))


class KD(Term):
    """The divergence of softened logits."""

    class Settings(Config):
        """`temperature` softens both sides; the factor T^2 keeps the gradient's size."""

        temperature: float = Field(default=4, gt=0)

    student_view = teacher_view = View.LOGITS

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        self.temperature = settings.temperature

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `divergence`."""
        return divergence(student.logits, teacher.logits, self.temperature)
