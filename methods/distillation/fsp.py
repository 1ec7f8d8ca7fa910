"""FSP. Yim et al.: A Gift from Knowledge Distillation (CVPR 2017), equations 1 and 2."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from methods.distillation.layers import full_precision, inner_products, match
from methods.distillation.term import Answers, Batch, NoSettings, Scene, Term, same_length


def flow(lower: Tensor, upper: Tensor, broadcast: bool) -> Tensor:
    """The mean over HW of all products of two maps' channels: [B, C_lower, C_upper]; the larger map is pooled."""
    lower, upper = match(lower, upper)
    return inner_products(lower.flatten(2), upper.flatten(2), broadcast) / (lower.shape[2] * lower.shape[3])


@full_precision
def flows(student: list[Tensor], teacher: list[Tensor], broadcast: bool) -> Tensor:
    """The mean squared difference of `flow` for each pair of consecutive maps, summed."""
    value = student[0].new_zeros(())
    for (s_lower, s_upper), (t_lower, t_upper) in zip(pairwise(student), pairwise(teacher), strict=True):
        ours, theirs = flow(s_lower, s_upper, broadcast), flow(t_lower, t_upper, broadcast)
        value = value + (ours - theirs).pow(2).mean()
    return value


class FSP(Term):
    """The initial term: `flows` of all maps. Both networks must have the same channels everywhere."""

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()
        same_length(scene)
        ours, theirs = ([shape[0] for shape in shapes[:-1]] for shapes in (scene.student, scene.teacher))
        if ours != theirs:
            raise ValueError(
                f"FSP compares maps channel by channel, but the student has {ours} and the teacher {theirs} channels"
            )
        self.broadcast = scene.published

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """See `flows`."""
        return flows(student.features[:-1], teacher.features[:-1], self.broadcast)


class Afterwards(Term):
    """The main term: nothing, as shipped."""

    uses_teacher = False

    def __init__(self, scene: Scene, settings: NoSettings) -> None:
        super().__init__()

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """Zero."""
        return student.logits.new_zeros(())
