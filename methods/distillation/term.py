"""The interface of a paper's term: what it may see of both networks, and what it returns."""

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
    """What a network must return: its logits; also its features; or features with stage maps before their last ReLU."""

    LOGITS = "logits"
    FEATURES = "features"
    PREACTIVATIONS = "preactivations"


class Answers(NamedTuple):
    """A network's answers to a batch: logits [B, K], and its feature list where features were asked for (else empty).

    The list is f[0], ..., f[-1] of `benchmark.vision.models.repdistiller.interface.FeatureNetwork`.
    """

    features: list[Tensor]
    logits: Tensor

    @property
    def middle(self) -> list[Tensor]:
        """f[1..-2]: the maps of the stages, without stem and pooled vector."""
        return self.features[1:-1]

    @property
    def pooled(self) -> Tensor:
        """f[-1]: the vector [B, C] that the classifier sees."""
        return self.features[-1]


class Batch(NamedTuple):
    """Further data of a batch: labels, and each image's position in the training set, both int64 [B]."""

    labels: Tensor
    position: Tensor


@dataclass(frozen=True)
class Scene:
    """The networks and data that a term is built for.

    `student` and `teacher` are the shapes of their features (empty for a network that exposes none). `labels`, int64
    [n] on the CPU, are those of all training images in the order of their positions. With `published` the term computes
    the same numbers in the way of the original code. `prepared` holds the tensors of the trained initial term.
    """

    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...]
    labels: Tensor
    published: bool = False
    prepared: Mapping[str, Tensor] = field(default_factory=dict)


class NoSettings(Config):
    """The settings of a paper without settings."""


class Term(nn.Module):
    """One paper's term of the loss, unweighted: `forward(student, teacher, batch)` gives a scalar.

    A term is built as `Kind(scene, settings)`, where `settings` are an instance of its class's `Settings`. It raises
    ValueError, with the reason, for a pair of networks that it cannot compare. Its parameters that require a gradient
    train together with the student's. Teacher tensors never carry a gradient.
    """

    Settings: ClassVar[type[Config]] = NoSettings
    student_view: ClassVar[View] = View.FEATURES
    teacher_view: ClassVar[View] = View.FEATURES
    uses_student: ClassVar[bool] = True
    """Whether the value depends on the student at all; where not, the original still runs the student, without use."""
    uses_teacher: ClassVar[bool] = True
    least_images: ClassVar[int] = 1
    """The smallest number of images in a batch, also in the last batch of an epoch."""
    hands_on: ClassVar[bool] = False
    """For an initial term: whether the main term needs its trained tensors (`Scene.prepared`)."""
    capturable = True
    """Whether every call runs the same operations on the device, on tensors that stay in place."""

    def forward(self, student: Answers, teacher: Answers, batch: Batch) -> Tensor:
        """The value for a batch, averaged over its images as in the paper."""
        raise NotImplementedError


def middle(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The shapes of f[1..-2]."""
    return shapes[1:-1]


def same_length(scene: Scene) -> None:
    """Raise ValueError where student and teacher have different numbers of stages."""
    if len(scene.student) != len(scene.teacher):
        raise ValueError(
            f"student and teacher have {len(scene.student) - 2} and {len(scene.teacher) - 2} stages, "
            "which this method cannot pair: choose networks with the same number of stages"
        )
