"""The mean activation."""

from __future__ import annotations

from torch import Tensor

from methods.pruning.criteria.activations import Activation, Site, mean
from methods.pruning.criteria.subject import Scores, Subject


def activation_mean(subject: Subject, activation: Activation = "relu", activation_site: Site = "pre_bn") -> Scores:
    """The mean of a filter's activations. Source: Molchanov et al. 2017, section 2.2."""

    def itself(active: Tensor) -> Tensor:
        return active

    return mean(subject, itself, activation, activation_site)
