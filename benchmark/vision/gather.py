"""Makes a data set of one's own from a folder of images, or from arrays. Needs Pillow, and no torch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.vision.files import DataError
from benchmark.vision.own_data import SIDE, SPLITS, Arrays, check_labels

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")
TEST_FOLDERS = ("test", "val", "valid", "validation")
KERAS = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
"""Names of arrays that are taken for ours."""


class How(NamedTuple):
    """How images become a data set.

    `test_share` of each class is drawn by `seed` for the test split, where the folder has none. With `resize` an image
    of another size is cut to its middle square and scaled to 32 x 32; without it, it is an error.
    """

    test_share: float = 0.2
    seed: int = 0
    resize: bool = False


class Gathered(NamedTuple):
    """The arrays (see `own_data`), the names of the classes, and lines on what a user should know."""

    arrays: Arrays
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def gather(source: Path, how: How, progress: Callable[[str], None] = lambda line: None) -> Gathered:
    """The data set of a folder or of an .npz file.

    A folder holds train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or CLASS/IMAGE alone. A file holds the arrays of
    `own_data`, or x_train, y_train, x_test and y_test; its labels are integers, its images uint8 [n, 32, 32, 3].
    Raises DataError where there is no such thing.
    """
    if source.is_dir():
        gathered = _from_folder(source, how, progress)
    elif source.is_file():
        gathered = _from_arrays(source)
    else:
        raise DataError(f"from={source}: there is no such folder or file")
    try:
        check_labels(gathered.arrays, len(gathered.classes))
    except ValueError as error:
        raise DataError(f"from={source}: {error}") from error
    if not len(gathered.arrays["test_labels"]):
        raise DataError(f"from={source}: not a single test image: give test/ images, or a larger test_share")
    return gathered._replace(notes=(*gathered.notes, *_in_both(gathered.arrays)))


def constants(arrays: Arrays) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the training images, per channel, of pixels between 0 and 1, to four digits."""
    pixels = arrays["train_images"].reshape(-1, 3)
    count = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])  # exact, without floats
    values = np.arange(256) / 255
    mean = (count * values).sum(1) / len(pixels)
    std = np.sqrt((count * (values - mean[:, None]) ** 2).sum(1) / len(pixels))
    return [round(float(each), 4) for each in mean], [max(round(float(each), 4), 1e-4) for each in std]


def _from_folder(source: Path, how: How, progress: Callable[[str], None]) -> Gathered:
    train, test = source / "train", next((source / name for name in TEST_FOLDERS if (source / name).is_dir()), None)
    if train.is_dir() and test is None:
        raise DataError(f"from={source}: train/ without test/ or val/ beside it: name {train} itself to split it")
    parts = {"train": train, "test": test} if test is not None and train.is_dir() else {"all": source}
    classes = tuple(sorted(folder.name for folder in next(iter(parts.values())).iterdir() if _is_class(folder)))
    if len(classes) < 2:
        raise DataError(
            f"from={source}: a data set is a folder of at least two folders of images, one a class (or train/CLASS and "
            f"test/CLASS); found {len(classes)}"
        )
    found: dict[str, dict[str, list[Path]]] = {}
    notes = []
    for part, folder in parts.items():
        strange = sorted(each.name for each in folder.iterdir() if _is_class(each) and each.name not in classes)
        if strange:
            raise DataError(f"{folder} has the classes {', '.join(strange[:5])}, of which there are no training images")
        found[part] = {name: sorted(_images(folder / name)) for name in classes}
    if "all" in found:
        notes.append(f"{how.test_share:.0%} of each class are test images, drawn by seed={how.seed}")
        found = _drawn(found["all"], how)
    arrays: dict[str, NDArray[Any]] = {}
    for part in SPLITS:
        paths = [(path, label) for label, name in enumerate(classes) for path in found[part][name]]
        arrays[f"{part}_images"] = _read(paths, how, progress, part)
        arrays[f"{part}_labels"] = np.array([label for _, label in paths], dtype=np.int64)
    return Gathered(arrays, classes, tuple(notes))


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _images(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _drawn(images: dict[str, list[Path]], how: How) -> dict[str, dict[str, list[Path]]]:
    """A split of each class; the draws of one class do not depend on the others."""
    test: dict[str, list[Path]] = {}
    for name, paths in images.items():
        order = np.random.default_rng([how.seed, zlib.crc32(name.encode())]).permutation(len(paths))
        test[name] = [paths[number] for number in sorted(order[: round(len(paths) * how.test_share)])]
    rest = {name: [path for path in paths if path not in set(test[name])] for name, paths in images.items()}
    return {"train": rest, "test": test}


def _read(paths: list[tuple[Path, int]], how: How, progress: Callable[[str], None], part: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    made = np.empty((len(paths), SIDE, SIDE, 3), dtype=np.uint8)
    for number, (path, _) in enumerate(paths):
        try:
            with Image.open(path) as image:
                size, pixels = image.size, image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow's readers raise
            raise DataError(f"{path} cannot be read as an image ({error}): remove or mend it") from error
        if size != (SIDE, SIDE):
            if not how.resize:
                raise DataError(
                    f"{path} is {size[0]} x {size[1]}; networks here take {SIDE} x {SIDE}: resize=true cuts the middle "
                    "square out and scales it"
                )
            pixels = ImageOps.fit(pixels, (SIDE, SIDE), method=Image.Resampling.BICUBIC)
        made[number] = np.asarray(pixels)
        if (number + 1) % 5000 == 0:
            progress(f"{part}: {number + 1:,} of {len(paths):,} images read")
    return made


def _from_arrays(source: Path) -> Gathered:
    try:
        with np.load(source, allow_pickle=False) as file:
            names = {ours: ours if ours in file.files else theirs for ours, theirs in KERAS.items()}
            missing = [f"{ours} (or {KERAS[ours]})" for ours, name in names.items() if name not in file.files]
            if missing:
                raise DataError(f"from={source}: holds no {', '.join(missing)}")
            arrays = {ours: np.asarray(file[name]) for ours, name in names.items()}
    except (OSError, ValueError, EOFError, zlib.error, AttributeError) as error:  # AttributeError: a single .npy
        raise DataError(f"from={source}: it is no .npz file of plain arrays ({error})") from error
    for part in SPLITS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
            raise DataError(
                f"from={source}: {part} images are {images.dtype} {list(images.shape)}, not uint8 [n, 32, 32, 3]"
            )
        if labels.dtype.kind not in "iu" or labels.size != len(images):
            raise DataError(
                f"from={source}: {part} labels are {labels.dtype} {list(labels.shape)}, not one integer each"
            )
        arrays[f"{part}_labels"] = labels.reshape(-1).astype(np.int64)
    highest = max(int(arrays[f"{part}_labels"].max(initial=0)) for part in SPLITS)
    return Gathered(arrays, tuple(str(number) for number in range(min(highest, 1_000_000) + 1)), ())


def _in_both(arrays: Arrays) -> Iterator[str]:
    """A line where test images are training images, too: an accuracy on those says nothing."""
    seen = {image.tobytes() for image in arrays["train_images"]}
    both = sum(image.tobytes() in seen for image in arrays["test_images"])
    if both:
        yield f"{both} of {len(arrays['test_images'])} test images are training images, too: their accuracy is no test"
