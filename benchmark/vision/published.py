"""Execution as in the originals: worker processes transform image by image, and metrics are read back as there.

Order and draws are those of the fast profile, so that losses can be compared step by step. The originals transform PIL
images; here the suite's usual tensor operations transform one image at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmark.vision.data import Batch, Loader
from benchmark.vision.originals import Original


class _Single(Dataset[tuple[Tensor, ...]]):
    """The images of one epoch in their order; each is transformed separately when it is requested."""

    def __init__(self, loader: Loader, rows: Tensor) -> None:
        self._loader, self._rows = loader, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        return tuple(part[0] for part in self._loader.batch(self._rows[position : position + 1]))


def worker_batches(loader: Loader, number: int, original: Original, device: str) -> Iterator[Batch]:
    """The batches of epoch `number` on `device`, made by worker processes that are started again for every epoch.

    The loader's images must lie in host memory.
    """
    pinned = original.pinned and device.startswith("cuda")
    with warnings.catch_warnings():
        # the originals' number of workers is intended, even on fewer cores
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        batches = DataLoader(
            _Single(loader, loader.choices(number)),
            batch_size=loader.batch_size,
            num_workers=original.workers,
            pin_memory=pinned,
            generator=torch.Generator().manual_seed(0),  # its draw of a seed must not move the global generator
        )
        iterator = iter(batches)
    for images, labels, index in iterator:
        yield tuple(part.to(device, non_blocking=pinned) for part in (images, labels, index))


def read_back(value: Tensor, logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Loss, top-1 and top-5 hits of a batch on the host: three waits per step, as in the original's loop."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = ranked.t().eq(labels[None])
    top1, top5 = right[:1].float().sum().item(), right.float().sum().item()
    return value.item(), top1, top5
