"""Writes tests/data/augment_golden.npz: images, torchvision's own random draws, and torchvision's augmented pixels.

Run it once, where torchvision is installed; the test that reads the file then needs no torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.vision.download import import_torchvision

OUT = Path(__file__).resolve().parent.parent / "tests" / "data" / "augment_golden.npz"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
COUNT, PADDING = 32, 4


def main() -> None:
    """Send every image through torchvision in both orders; before that, read its draws from the same generator
    state."""
    import_torchvision()
    from PIL import Image
    from torchvision import transforms

    crop = transforms.RandomCrop(32, padding=PADDING)
    flip = transforms.RandomHorizontalFlip()
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    saved: dict[str, Any] = {"pixels": images.transpose(0, 3, 1, 2), "mean": MEAN, "std": STD, "padding": PADDING}
    for name, first in (("crop_flip", [crop, flip]), ("flip_crop", [flip, crop])):
        pipeline = transforms.Compose([*first, *end])
        draws, out = [], []
        for number, image in enumerate(images):
            draws.append(_draws(number, name))
            torch.manual_seed(number)
            out.append(pipeline(Image.fromarray(image)).numpy())
        saved[f"{name}.draws"] = np.array(draws)
        saved[f"{name}.out"] = np.stack(out)
    np.savez_compressed(OUT, **saved)


def _draws(seed: int, order: str) -> tuple[int, int, int]:
    """(top, left, flip) that torchvision will draw after manual_seed(seed), in the order in which it draws them."""
    torch.manual_seed(seed)

    def offsets() -> tuple[int, int]:
        return tuple(int(torch.randint(0, 2 * PADDING + 1, (1,)).item()) for _ in range(2))  # type: ignore[return-value] # two of them

    def flips() -> int:
        return int(torch.rand(1).item() < 0.5)

    if order == "crop_flip":
        top, left = offsets()
        return top, left, flips()
    flipped = flips()
    return (*offsets(), flipped)


if __name__ == "__main__":
    main()
