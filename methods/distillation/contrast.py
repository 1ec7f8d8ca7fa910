"""Draws the images that CRD compares with: the positive first, then negatives of other classes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Positive = Literal["exact", "relax"]


class Draw(nn.Module):
    """`draw(labels, position)` gives int64 [B, 1 + m]: a positive, then m images drawn uniformly from other classes.

    The positive is `position` itself, or with `relax` any image of the same class. The draw is without replacement if
    every class has at least m images of other classes, and otherwise with replacement (only in a small training set).
    Draws depend only on torch's global generators. Raises ValueError for a training set of a single class.
    """

    labels: Tensor
    order: Tensor
    first: Tensor
    count: Tensor

    def __init__(self, labels: Tensor, negatives: int, positive: Positive) -> None:
        super().__init__()
        self.negatives, self.positive = negatives, positive
        count = torch.bincount(labels)
        others = len(labels) - int(count.max())
        if others == 0:
            raise ValueError("contrast needs training images of at least two classes")
        self.with_replacement = negatives > others
        # not part of a checkpoint: they follow from the data
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("order", torch.argsort(labels, stable=True), persistent=False)
        self.register_buffer("first", torch.cumsum(count, 0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)

    def positives(self, labels: Tensor, position: Tensor) -> Tensor:
        """The first column, [B]."""
        if self.positive == "exact":
            return position
        return self.order[self.first[labels] + _below(self.count[labels])]


class DrawOnDevice(Draw):
    """Draws on the device of the labels, at once for the whole batch."""

    def forward(self, labels: Tensor, position: Tensor) -> Tensor:
        """See `Draw`."""
        negatives = self._spread(labels) if self.with_replacement else self._distinct(labels)
        return torch.cat([self.positives(labels, position)[:, None], negatives], 1)

    def _distinct(self, labels: Tensor) -> Tensor:
        # taking the largest of independent keys makes every subset of the other classes' images equally likely
        shape, most = (len(labels), len(self.labels)), torch.iinfo(torch.int32).max
        keys = torch.randint(0, most, shape, dtype=torch.int32, device=labels.device)
        keys.masked_fill_(self.labels[None] == labels[:, None], -1)
        return keys.topk(self.negatives, dim=1, sorted=False).indices

    def _spread(self, labels: Tensor) -> Tensor:
        count, first = self.count[labels][:, None], self.first[labels][:, None]
        rank = _below((len(self.labels) - count).expand(-1, self.negatives))
        return self.order[torch.where(rank >= first, rank + count, rank)]


class DrawOnHost(Draw):
    """Draws image by image with numpy's legacy generator, and copies the draws to the device.

    The original does this in its loader's workers; here the training process does it.
    """

    def __init__(self, labels: Tensor, negatives: int, positive: Positive) -> None:
        super().__init__(labels, negatives, positive)
        numbers = labels.numpy()
        self._others = [np.flatnonzero(numbers != label) for label in range(int(numbers.max()) + 1)]

    def forward(self, labels: Tensor, position: Tensor) -> Tensor:
        """See `Draw`."""
        seed = int(torch.randint(2**32 - 1, ()))
        legacy = np.random.RandomState(seed)  # as slow as the original, on purpose
        rows = [legacy.choice(self._others[k], self.negatives, self.with_replacement) for k in labels.tolist()]
        negatives = torch.from_numpy(np.stack(rows)).to(labels.device)
        return torch.cat([self.positives(labels, position)[:, None], negatives], 1)


def _below(bounds: Tensor) -> Tensor:
    """Uniform integers, each at least 0 and below its entry of `bounds`."""
    drawn = (torch.rand(bounds.shape, device=bounds.device, dtype=torch.float64) * bounds).long()
    return torch.minimum(drawn, bounds - 1)
