"""The input of a criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from benchmark.plan.task import Recipe
from benchmark.vision.data import Batch

Scores = dict[str, Tensor]
"""A number per filter, [filters], by the name of the convolution. The lowest are removed."""


@dataclass(frozen=True)
class Subject:
    """A network, the convolutions whose filters the criterion scores, and the training steps to look at.

    With `batches` (images, labels, indices; on the network's device) `model` is a copy, and the criterion may train it
    by `recipe`. Without `batches` the criterion must only read it.
    """

    model: nn.Module
    layers: Sequence[str]
    batches: Sequence[Batch]
    recipe: Recipe

    def weights(self) -> dict[str, Tensor]:
        """The convolutions' weights, [filters, ...], detached."""
        return {name: cast(Tensor, self.model.get_submodule(name).weight).detach() for name in self.layers}
