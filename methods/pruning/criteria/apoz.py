"""The average percentage of zeros."""

from __future__ import annotations

from torch import Tensor

from methods.pruning.criteria.activations import Activation, Site, mean
from methods.pruning.criteria.subject import Scores, Subject


def apoz(subject: Subject, activation: Activation = "relu", activation_site: Site = "pre_bn") -> Scores:
    """The share of activations above zero: 1 - APoZ, so that low scores are removed. Source: Hu et al. 2016."""

    def positive(active: Tensor) -> Tensor:
        return active > 0

    return mean(subject, positive, activation, activation_site)
