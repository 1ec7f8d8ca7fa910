"""The student's whole loss: weighted cross-entropy, softened divergence and the term of a paper."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.distillation.kd import divergence
from methods.distillation.params import Weights
from methods.distillation.term import Answers, Batch, Term, View

INITIAL = Weights(ce=None)
"""The weights of an initial stage, which trains only with its term."""


class AnsweringTeacher(Protocol):
    """A frozen network that answers without gradients: `benchmark.vision.teacher.Teacher`."""

    def logits(self, images: Tensor) -> Tensor: ...
    def features(self, images: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]: ...


NOTHING = Answers([], torch.empty(0))


class Objective(nn.Module):
    """The loss of distillation, in the form that the training loop needs.

    `no_waste` leaves out what the original computes but does not use: a divergence of weight zero, and answers of a
    network that no part needs. The training is the same, but where the student does not run (the initial stage of FT)
    the returned logits are the teacher's.
    """

    ramp: Tensor

    def __init__(self, teacher: AnsweringTeacher, term: Term, weights: Weights, no_waste: bool = False) -> None:
        super().__init__()
        if weights.term is None:
            raise ValueError("the term has no weight: Choice.for_pair gives it the pair's")
        self.teacher = teacher
        self.term = term
        self.weights = weights
        self.weight = weights.term
        self.kd = None if no_waste and not weights.kd else weights.kd
        self.asks_student = term.uses_student or weights.ce is not None or not no_waste
        self.asks_teacher = term.uses_teacher or self.kd is not None
        self.register_buffer("ramp", torch.ones(()))

    @property
    def capturable(self) -> bool:
        """Whether the term is capturable."""
        return self.term.capturable

    def begin_epoch(self, epoch: int) -> None:
        """Set the ramp for an epoch, counted from zero."""
        length = self.weights.ramp_epochs
        self.ramp.fill_(min((epoch + 1) / length, 1.0) if length else 1.0)

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the student's logits."""
        teacher = self._teacher(images) if self.asks_teacher else NOTHING
        student = look(model, images, self.term.student_view) if self.asks_student else Answers([], teacher.logits)
        value = self.weight * self.ramp * self.term(student, teacher, Batch(labels, index))
        if self.weights.ce is not None:
            value = value + self.weights.ce * functional.cross_entropy(student.logits, labels)
        if self.kd is not None:
            soft = divergence(student.logits, teacher.logits, self.weights.kd_temperature)
            value = value + self.kd * soft
        return value, student.logits

    def _teacher(self, images: Tensor) -> Answers:
        if self.term.teacher_view is View.LOGITS:
            return Answers([], self.teacher.logits(images))
        return Answers(*self.teacher.features(images, self.term.teacher_view is View.PREACTIVATIONS))


def look(network: nn.Module, images: Tensor, view: View) -> Answers:
    """The answers of a network in training to images [B, 3, 32, 32], as `view` asks."""
    if view is View.LOGITS:
        return Answers([], network(images))
    features = cast(Any, network).features
    return Answers(*features(images, view is View.PREACTIVATIONS))
