"""Top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmark.vision.data import Loader


class BrokenNetwork(ValueError):
    """A network answers NaN or infinity, so it has no accuracy.

    It would seem to have one: class 0 counts as the largest of NaNs, and one image in a hundred is of that class.
    """


def accuracy(model: nn.Module | Callable[[Tensor], Tensor], loader: Loader) -> float:
    """Top-1 accuracy in percent over all images of `loader`; a module is put into eval mode and left there.

    Raises BrokenNetwork where an answer is NaN or infinity.
    """
    if isinstance(model, nn.Module):
        model.eval()
    sums = torch.zeros(2, dtype=torch.int64, device=loader.images.pixels.device)
    with torch.inference_mode():
        for images, labels, _ in loader:
            logits = model(images)
            sums += torch.stack([(logits.argmax(1) == labels).sum(), broken(logits)])
    hits, lost = sums.tolist()
    if lost:
        raise BrokenNetwork(
            f"the network answers NaN or infinity to {lost} of {loader.count} images: it has no accuracy"
        )
    return 100 * float(hits) / loader.count


def broken(logits: Tensor) -> Tensor:
    """How many of these answers [images, classes] hold NaN or infinity; stays on the device."""
    return (~torch.isfinite(logits)).any(1).sum()
