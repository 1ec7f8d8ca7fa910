"""Top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmark.vision.data import Loader


def accuracy(model: nn.Module | Callable[[Tensor], Tensor], loader: Loader) -> float:
    """Top-1 accuracy in percent over all images of `loader`; a module is put into eval mode and left there."""
    if isinstance(model, nn.Module):
        model.eval()
    hits = torch.zeros((), dtype=torch.int64, device=loader.images.pixels.device)
    with torch.inference_mode():
        for images, labels, _ in loader:
            hits += (model(images).argmax(1) == labels).sum()
    return 100 * hits.item() / loader.count
