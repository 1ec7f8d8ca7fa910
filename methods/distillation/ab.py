"""AB. Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries (AAAI 2019), equation 7."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from benchmark.plan.task import Config
from methods.distillation.layers import ConvReg, full_precision
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Shape, Term, View, middle, same_length

SCALE = 3 / 1000
"""RepDistiller's factor: the authors' 1/1000, times three."""


@full_precision
def boundaries(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """The squared hinge that moves pre-activations [B, C, H, W] past `margin` on the teacher's side of zero.

    Summed over all elements and divided by B.
    """
    inactive = ((student > -margin) & (teacher <= 0)) * (student + margin).pow(2)
    active = ((student <= margin) & (teacher > 0)) * (student - margin).pow(2)
    return (inactive + active).sum() / len(student)


def connector(student: Shape, teacher: Shape) -> nn.Module:
    """Identity between equal shapes, else a convolution and batch normalisation."""
    return nn.Identity() if student == teacher else ConvReg(student, teacher, relu=False)


class AB(Term):
    """The initial term: `boundaries` of connected pre-activations; each stage has half the weight of the next, the last
    1.
    """

    class Settings(Config):
        """The hinge's `margin`."""

        margin: float = Field(default=1, gt=0)

    student_view = teacher_view = View.PREACTIVATIONS

    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__()
        same_length(scene)
        self.margin = settings.margin
        pairs = zip(middle(scene.student), middle(scene.teacher), strict=True)
        self.connectors = nn.ModuleList(connector(s, t) for s, t in pairs)

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `boundaries`."""
        value = student.logits.new_zeros(())
        for connect, ours, theirs in zip(self.connectors, student.middle, teacher.middle, strict=True):
            value = value / 2 + SCALE * boundaries(connect(ours), theirs, self.margin)
        return value


class Afterwards(Term):
    """The main term: nothing.

    As shipped, the networks still compute pre-activations. A wide ResNet in train mode then runs three batch
    normalisations twice per step and updates their statistics twice.
    """

    student_view = teacher_view = View.PREACTIVATIONS
    uses_teacher = False

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """Zero."""
        return student.logits.new_zeros(())
