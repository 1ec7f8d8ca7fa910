"""What a paper's file is written against: what it may see of both networks, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from benchmark.plan.task import Config

Shape = tuple[int, ...]
"""A feature without its batch dimension: (C, H, W) of a map, (C,) of the pooled vector."""


class View(Enum):
    """What a network is asked for: its logits, its features too, or these with the maps of the stages before their
    last ReLU."""

    LOGITS = "logits"
    FEATURES = "features"
    PREACTIVATIONS = "preactivations"


class Answers(NamedTuple):
    """What a network shows of a batch: logits [B, K], and the list f[0], ..., f[-1] of
    `benchmark.vision.models.repdistiller.interface.FeatureNetwork` where it was asked for features (else empty)."""

    features: list[Tensor]
    logits: Tensor

    @property
    def middle(self) -> list[Tensor]:
        """f[1..-2]: the maps of the stages, stem and pooled vector left out."""
        return self.features[1:-1]

    @property
    def pooled(self) -> Tensor:
        """f[-1]: the vector [B, C] that the classifier sees."""
        return self.features[-1]


class Batch(NamedTuple):
    """What else a term may know of a batch: labels, and each image's position in the training set, both int64 [B]."""

    labels: Tensor
    position: Tensor


@dataclass(frozen=True)
class Scene:
    """What a term is built for.

    `student` and `teacher` are the shapes of their features (empty for a network that shows none), `labels` int64 [n]
    those of all training images in the order of their positions, on the CPU. `published` asks for the original's own
    way to the same numbers. `prepared` holds the tensors that the initial term handed on.
    """

    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...]
    labels: Tensor
    published: bool = False
    prepared: Mapping[str, Tensor] = field(default_factory=dict)


class NoSettings(Config):
    """The settings of a paper that has none."""


class Term(nn.Module):
    """One paper's term of the loss, unweighted: `forward(student, teacher, batch)` gives a scalar.

    A term is built as `Kind(scene, settings)` with `settings` of its class's own `Settings`, and raises ValueError,
    with the reason, for a pair of networks that it cannot serve. Its parameters that require a gradient train beside
    the student's. Teacher tensors never carry a gradient.
    """

    Settings: ClassVar[type[Config]] = NoSettings
    student_view: ClassVar[View] = View.FEATURES
    teacher_view: ClassVar[View] = View.FEATURES
    uses_student: ClassVar[bool] = True
    """Whether the value depends on the student at all (as the original calls it anyway, that is only waste)."""
    uses_teacher: ClassVar[bool] = True
    least_images: ClassVar[int] = 1
    """What a batch must hold, the last one of an epoch too."""
    hands_on: ClassVar[bool] = False
    """Of an initial term: whether the main term needs its trained tensors (`Scene.prepared`)."""
    capturable = True
    """Whether every call does the same device work on tensors that stay in place."""

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """The value for a batch, mean over its images as the paper has it."""
        raise NotImplementedError


def middle(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The shapes of f[1..-2]."""
    return shapes[1:-1]


def same_length(scene: Scene) -> None:
    """Raise ValueError where student and teacher have different numbers of stages."""
    if len(scene.student) != len(scene.teacher):
        raise ValueError(
            f"student and teacher have {len(scene.student) - 2} and {len(scene.teacher) - 2} stages, "
            "which this method cannot pair: choose networks with equally many"
        )
