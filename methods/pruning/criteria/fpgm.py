"""The geometric median."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.pruning.criteria.subject import Scores, Subject


def fpgm(subject: Subject) -> Scores:
    """Sum of each filter's distances to all filters of its layer.

    The distance-sum form of the geometric median, without a norm filter before it, as in NNI. Source: He et al. 2019,
    equation 4.
    """
    return {name: _distances(weight.flatten(1)) for name, weight in subject.weights().items()}


def _distances(flat: Tensor) -> Tensor:
    # distances computed by matrix product would lose half the digits
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
