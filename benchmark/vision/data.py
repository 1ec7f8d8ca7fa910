"""Data sets in memory as uint8, and loaders that augment and normalise whole batches."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.plan.task import Data, Recipe, Scale, Task
from benchmark.vision.files import DataError as DataError
from benchmark.vision.files import read
from benchmark.vision.originals import original_of


@dataclass(frozen=True)
class Images:
    """A split: `pixels` uint8 [n, 3, 32, 32] and `labels` int64 [n], on one device."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Images:
        """The same split on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


def load(data: Data, root: Path, scale: Scale) -> tuple[Images, Images]:
    """Train and test split of a data set, cut to the scale: the first images of every class, so a cut stays balanced.

    Raises DataError where files are missing or damaged.
    """
    if data.name == "synthetic":
        return _synthetic(data, scale)
    train, test = (Images(torch.from_numpy(pixels), torch.from_numpy(labels)) for pixels, labels in read(data, root))
    return _first_of_each_class(train, scale.train_images), _first_of_each_class(test, scale.test_images)


def _first_of_each_class(images: Images, count: int | None) -> Images:
    """`count` images in file order, the same number of each class as far as `count` divides."""
    if count is None or count >= len(images):
        return images
    order = torch.argsort(images.labels, stable=True)
    sizes = torch.bincount(images.labels)
    # rank of each image within its own class, then class by class within a rank: a prefix of this order is balanced
    rank = torch.arange(len(order)) - torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
    chosen = order[torch.argsort(rank, stable=True)[:count]].sort().values
    return Images(images.pixels[chosen], images.labels[chosen])


def _synthetic(data: Data, scale: Scale) -> tuple[Images, Images]:
    """CIFAR-shaped, learnable images, the same at every call: a smooth template per class, shifted, scaled and
    noisy."""
    classes, generator = data.classes, torch.Generator().manual_seed(20210831)
    coarse = torch.rand(classes, 3, 4, 4, generator=generator)
    templates = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear", align_corners=False) * 255

    def split(count: int) -> Images:
        labels = torch.arange(count) % classes
        contrast = 0.6 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
        pixels = torch.empty(count, 3, 32, 32, dtype=torch.uint8)
        for start in range(0, count, 4096):  # in pieces: the whole set in float32 would take gigabytes
            part = slice(start, start + 4096)
            noise = 40 * torch.randn(len(labels[part]), 3, 32, 32, generator=generator)
            pixels[part] = (contrast[part] * templates[labels[part]] + noise).clamp(0, 255).to(torch.uint8)
        return Images(pixels, labels)

    return split(scale.train_images or data.train_images), split(scale.test_images or data.test_images)


class Draws(NamedTuple):
    """The random choices of a batch: crop offsets `top` and `left` (int64 [n], 0 to 2 x padding) and `flip` (bool
    [n])."""

    top: Tensor
    left: Tensor
    flip: Tensor

    def part(self, rows: slice) -> Draws:
        """The draws of some of the images."""
        return Draws(self.top[rows], self.left[rows], self.flip[rows])


def draw(count: int, padding: int, generator: torch.Generator) -> Draws:
    """Independent draws for `count` images, as RandomCrop(32, padding) and RandomHorizontalFlip(0.5) make them."""
    return Draws(
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.rand(count, generator=generator) < 0.5,
    )


def augment(pixels: Tensor, draws: Draws, padding: int, order: str) -> Tensor:
    """Crop (zero padding) and flip a uint8 batch [n, 3, 32, 32]; bit-identical to torchvision given the same draws.

    `order` is 'crop_flip' (RepDistiller) or 'flip_crop' (NNI): with equal draws the two give different images.
    """
    size = pixels.shape[-1]
    padded = torch.nn.functional.pad(pixels, (padding,) * 4)
    span = torch.arange(size, device=pixels.device)
    rows = draws.top[:, None] + span
    columns = draws.left[:, None] + span
    width = padded.shape[-1]
    if order == "crop_flip":
        columns = torch.where(draws.flip[:, None], columns.flip(1), columns)
    else:
        # flipping first mirrors the padded image, so a column is counted from the other side
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    positions = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = padded.flatten(2)
    return flat.gather(2, positions[:, None, :].expand(-1, flat.shape[1], -1)).view_as(pixels)


def cut_out(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Normalised images [n, 3, h, w], each with a square of zeros that is `size` (even) pixels wide.

    The square is cut off at the borders: its first row and column, `top` and `left` (int64 [n]), may lie outside.
    Source: DeVries and Taylor 2017, as in DARTS (zero is the mean colour because this step follows normalisation).
    """
    span = torch.arange(images.shape[-1], device=images.device)
    rows = (span >= top[:, None]) & (span < top[:, None] + size)
    columns = (span >= left[:, None]) & (span < left[:, None] + size)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


class Normaliser:
    """uint8 [n, 3, h, w] to float32 as ToTensor and Normalize do it: divide by 255, subtract `mean`, divide by `std`.

    The constants are copied to the device once. A copy from the host in every batch would make every step wait.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """A normalised batch."""
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """One batch, normalised by a new `Normaliser`."""
    return Normaliser(mean, std, pixels.device)(pixels)


Batch = tuple[Tensor, Tensor, Tensor]
"""Images float32 [n, 3, 32, 32], labels int64 [n], and each image's index in its split int64 [n]."""


class Loader:
    """Batches of a split, or of some of its images (`over`), for one recipe; the ragged last batch is kept.

    With `seed` set, the order and the augmentation of epoch e are drawn from (seed, first_epoch + e) alone. So an
    interrupted run sees the same batches again: it needs only the number of the epoch. A later stage that gives the
    number of epochs before it as `first_epoch` sees new batches. Without a seed: file order, no augmentation.
    """

    def __init__(
        self, images: Images, recipe: Recipe, batch_size: int, seed: int | None = None, first_epoch: int = 0
    ) -> None:
        self.images = images
        self.recipe = recipe
        self.batch_size = batch_size
        self.seed = seed
        self.first_epoch = first_epoch
        self._chosen: Tensor | None = None
        self._stream = ""
        self._normalise = Normaliser(recipe.mean, recipe.std, images.pixels.device)

    def over(self, chosen: Tensor, stream: str = "") -> Loader:
        """This loader over some of its images.

        `chosen` holds their indices (int64 [n] on the CPU, in the order in which an unshuffled loader gives them).
        Batches keep the indices of the whole split. Two loaders that are used side by side, such as the two halves of
        an architecture search, need different `stream` names: with the same name they would make the same draws. Raises
        ValueError where `chosen` is empty, or holds an index that the split does not have.
        """
        if not len(chosen) or not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self.images):
            raise ValueError(f"a loader needs indices of images between 0 and {len(self.images) - 1}")
        part = copy.copy(self)
        part._chosen, part._stream = chosen, stream
        return part

    def plain(self) -> Loader:
        """This loader in order and without augmentation, as for calibration or for a validation split."""
        part = copy.copy(self)
        part.seed = None
        return part

    @property
    def count(self) -> int:
        """Images in an epoch."""
        return len(self.images) if self._chosen is None else len(self._chosen)

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def choices(self, number: int = 0) -> Tensor:
        """Everything drawn for epoch `number`, on the images' device: int64 [n, k], one row per image, in epoch order.

        The columns: index; top, left and flip where the recipe augments; top and left of the square where the recipe
        has cutout. A loader without a seed gives the index alone. Queues the copy and does not wait for it.
        """
        if self.seed is None:
            order = torch.arange(self.count) if self._chosen is None else self._chosen
            return order.to(self.images.pixels.device)[:, None]
        generator = self._generator(number)
        return self._drawn(torch.randperm(self.count, generator=generator), generator)

    def fresh(self, number: int, batches: int) -> Tensor:
        """Rows of `batches` whole batches, each a new draw from all images, for epoch `number`: int64 [batches, b, k].

        No image occurs twice in a batch, but it may occur in several batches, as in DARTS's validation batches: this is
        not a pass over the split. Queues the copy and does not wait for it. Raises ValueError without a seed.
        """
        if self.seed is None:
            raise ValueError("this loader has no seed, so it cannot draw fresh batches: build it with seed=...")
        generator, size = self._generator(number), min(self.batch_size, self.count)
        order = torch.cat([torch.randperm(self.count, generator=generator)[:size] for _ in range(batches)])
        return self._drawn(order, generator).view(batches, size, -1)

    def _generator(self, number: int) -> torch.Generator:
        assert self.seed is not None, "a loader that draws has a seed"
        return torch.Generator().manual_seed(mix(self.seed, self.first_epoch + number, self._stream))

    def _drawn(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """The images at these positions, and the random choices of each; see `choices`."""
        columns, count = [order if self._chosen is None else self._chosen[order]], len(order)
        if self.recipe.augment != "none":
            columns += draw(count, self.recipe.crop_padding, generator)
        if self.recipe.cutout:  # last, so that the other draws are the same without cutout
            side = self.images.pixels.shape[-1]
            centres = torch.randint(0, side, (2, count), generator=generator)
            columns += (centres - self.recipe.cutout // 2).unbind()
        rows = torch.stack(columns, 1)
        device = self.images.pixels.device
        return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows

    def batch(self, rows: Tensor) -> Batch:
        """The batch of some rows of `choices`."""
        index, *drawn = rows.unbind(1)
        pixels = self.images.pixels[index]
        if drawn and self.recipe.augment != "none":
            draws = Draws(drawn[0], drawn[1], drawn[2].bool())
            pixels = augment(pixels, draws, self.recipe.crop_padding, self.recipe.augment)
        images = self._normalise(pixels)
        if drawn and self.recipe.cutout:
            images = cut_out(images, drawn[-2], drawn[-1], self.recipe.cutout)
        return images, self.images.labels[index], index

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        return map(self.batch, torch.split(self.choices(number), self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)


def mix(seed: int, epoch: int, stream: str = "") -> int:
    """A generator seed for (seed, epoch, stream): neighbouring runs and epochs must not share their draws."""
    words = f"{seed}/{epoch}/{stream}" if stream else f"{seed}/{epoch}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") & 0x7FFF_FFFF_FFFF_FFFF


class Loaders(NamedTuple):
    """Training batches (shuffled, augmented) and test batches (in order, plain) of one task."""

    train: Loader
    test: Loader


TEST_BATCH = 500
"""In eval mode test accuracy does not depend on the batch size; this size suits caches and divides both test sets."""


def loaders(task: Task, root: Path, device: str, first_epoch: int = 0) -> Loaders:
    """The loaders of a task, its images held on `device`; `first_epoch` is the number of epochs before this stage.

    In the published profile training images stay in host memory, because the worker processes read them there, and test
    batches have the original's size.
    """
    train, test = load(task.data, root, task.scale)
    recipe = task.recipe
    published = task.profile == "published"
    return Loaders(
        Loader(
            train.to("cpu" if published else device), recipe, recipe.batch_size, seed=task.seed, first_epoch=first_epoch
        ),
        Loader(test.to(device), recipe, original_of(recipe).test_batch if published else TEST_BATCH),
    )
