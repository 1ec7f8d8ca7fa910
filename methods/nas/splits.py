"""Splits the training images of a search: weights learn from one part, the architecture from the other."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.vision.data import mix


def halves(count: int) -> tuple[Tensor, Tensor]:
    """Indices of the first and of the last half, in file order: DARTS's split."""
    return torch.arange(count // 2), torch.arange(count // 2, count)


def held_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of the `share` held out, drawn by `seed`.

    The same number of each class is held out, as far as that divides, and never the last image of a class. Raises
    ValueError where fewer than two images would be held out.
    """
    labels = labels.cpu()
    generator = torch.Generator().manual_seed(mix(seed, 0, "held out"))
    wanted = round(len(labels) * share)
    if wanted < 2:
        raise ValueError(
            f"holding out {share:g} of {len(labels)} images leaves {wanted} to validate on: use more images"
        )
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.argsort(labels[order], stable=True)]  # class by class, shuffled within
    sizes = torch.bincount(labels)
    ends = torch.cumsum(sizes, 0)
    rank = torch.arange(len(order)) - torch.repeat_interleave(ends - sizes, sizes)  # position within its class
    last = torch.repeat_interleave(sizes, sizes) - 1
    # the first of every class, then the second of every class and so on: any prefix of this order is balanced
    shuffled = torch.randperm(len(sizes), generator=generator)[labels[order]]
    turn = torch.where(rank == last, len(order), rank) * len(sizes) + shuffled
    chosen = order[torch.argsort(turn, stable=True)[:wanted]]
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[chosen] = False
    return kept.nonzero().flatten(), chosen.sort().values
