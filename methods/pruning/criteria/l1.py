"""The sum of absolute weights."""

from __future__ import annotations

from methods.pruning.criteria.subject import Scores, Subject


def l1(subject: Subject) -> Scores:
    """Sum of absolute values of each filter. Source: Li et al. 2017."""
    return {name: weight.flatten(1).abs().sum(1) for name, weight in subject.weights().items()}
