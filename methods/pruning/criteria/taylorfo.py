"""First-order Taylor expansion, on weights."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from methods.pruning.criteria.steps import train
from methods.pruning.criteria.subject import Scores, Subject


def taylorfo(subject: Subject, taylor_weights: Literal["pre", "post"] = "post") -> Scores:
    """Sum over a filter's elements of (weight x gradient)^2, squared before summing, and over the steps looked at.

    The gradient is multiplied by the weights before (`pre`, NNI 2.10 and 3.0) or after (`post`, NNI 2.3 and 2.4) the
    optimiser step. Raises ValueError where a convolution gets no gradient. Source: Molchanov et al. 2019, equation 8.
    """
    weights = {name: cast(Tensor, subject.model.get_submodule(name).weight) for name in subject.layers}
    sums: Scores = {}

    def add() -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                if weight.grad is None:
                    raise ValueError(
                        f"{name} has no gradient (frozen, or no part of the loss): taylorfo cannot score it"
                    )
                sums[name] = sums.get(name, 0) + contribution(weight, weight.grad)

    train(subject, before_step=add) if taylor_weights == "pre" else train(subject, after_step=add)
    return sums


def contribution(weight: Tensor, gradient: Tensor) -> Tensor:
    """(weight x gradient)^2 summed over each filter's elements; [filters, ...] to [filters]."""
    return (weight * gradient).square().flatten(1).sum(1)
