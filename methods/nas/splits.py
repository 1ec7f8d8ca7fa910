"""How the training images of a search are parted: weights learn from one part, the architecture from the other."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.vision.data import mix


def halves(count: int) -> tuple[Tensor, Tensor]:
    """Indices of the first and of the last half, in file order: DARTS's split."""
    return torch.arange(count // 2), torch.arange(count // 2, count)


def held_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of those held out: of every class `share` of its images, rounded, but at
    least one of each class is trained on. Drawn by `seed`. Raises ValueError where nothing would be held out."""
    labels = labels.cpu()
    generator = torch.Generator().manual_seed(mix(seed, 0, "held out"))
    kept, out = [], []
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        count = min(round(len(own) * share), len(own) - 1)
        out.append(own[:count])
        kept.append(own[count:])
    if not sum(map(len, out)):
        raise ValueError(f"holding out {share:g} of {len(labels)} images leaves none to validate on: use more images")
    return torch.cat(kept).sort().values, torch.cat(out).sort().values
