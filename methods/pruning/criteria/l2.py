"""The Euclidean norm."""

from __future__ import annotations

from methods.pruning.criteria.subject import Scores, Subject


def l2(subject: Subject) -> Scores:
    """Euclidean norm of each filter."""
    return {name: weight.flatten(1).square().sum(1).sqrt() for name, weight in subject.weights().items()}
