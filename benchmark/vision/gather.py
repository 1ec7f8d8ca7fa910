"""Makes a data set of one's own from a folder of images, or from arrays. Needs Pillow, and no torch."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.plan.task import MOST_IMAGES
from benchmark.vision import own_data
from benchmark.vision.files import DataError
from benchmark.vision.own_data import SIDE, SPLITS, Arrays, check_labels

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
"""Names of splits, in any case; of several the first is taken."""
MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "PA", "RGBA")
"""Pixels of eight bits, whose conversion to RGB loses nothing that a network should see."""
CLEAR = ("LA", "PA", "RGBA")
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
    try:
        if source.is_dir():
            gathered = _from_folder(source, how, progress)
        elif source.is_file():
            gathered = _from_arrays(source)
        else:
            raise DataError(f"from={source}: there is no such folder or file")
        check_labels(gathered.arrays, gathered.classes)
    except (OSError, ValueError) as error:
        raise DataError(f"from={source}: {error}") from error
    if not len(gathered.arrays["test_labels"]):
        raise DataError(f"from={source}: not a single test image: give test/ images")
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
    parts, notes = _parts(source)
    first = next(iter(parts.values()))
    classes = tuple(sorted(folder.name for folder in first.iterdir() if _is_class(folder)))
    if len(classes) < 2:
        raise DataError(
            f"from={source}: a data set is a folder of at least two folders of images, one a class (or train/CLASS and "
            f"test/CLASS); found {len(classes)}"
        )
    found: dict[str, dict[str, list[Path]]] = {}
    for part, folder in parts.items():
        strange = sorted(each.name for each in folder.iterdir() if _is_class(each) and each.name not in classes)
        if strange:
            raise DataError(f"{folder} has the classes {', '.join(strange[:5])}, of which there are no training images")
        found[part] = {name: sorted(_images(folder / name)) for name in classes}
    if "all" in found:
        notes.append(f"{how.test_share:.0%} of each class (at least one) are test images, drawn by seed={how.seed}")
        found = _drawn(found["all"], how)
    else:
        untested = [name for name in classes if not found["test"][name]]
        if untested:
            notes.append(f"no test image of {len(untested)} of {len(classes)} classes: {', '.join(untested[:5])}")
    arrays: dict[str, NDArray[Any]] = {}
    odd: Counter[str] = Counter()
    for part in SPLITS:
        paths = [(path, label) for label, name in enumerate(classes) for path in found[part][name]]
        if len(paths) > MOST_IMAGES:
            raise DataError(f"from={source}: {len(paths):,} {part} images; at most {MOST_IMAGES:,} are taken")
        arrays[f"{part}_images"] = _read(paths, how, progress, part, odd)
        arrays[f"{part}_labels"] = np.array([label for _, label in paths], dtype=np.int64)
    notes += [f"{count:,} images {what}" for what, count in odd.items()]
    return Gathered(arrays, classes, tuple(notes))


def _parts(source: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the splits (or that of all), and what is left out. Raises DataError where one split has no
    other: taken for classes, they would be learned."""
    folders = {folder.name.lower(): folder for folder in source.iterdir() if _is_class(folder)}
    train = [folders[name] for name in TRAIN_FOLDERS if name in folders]
    test = [folders[name] for name in TEST_FOLDERS if name in folders]
    if not train and not test:
        return {"all": source}, []
    if not train or not test:
        there = (train or test)[0]
        raise DataError(
            f"from={source}: {there.name}/ without {'test/ or val/' if train else 'train/'} beside it: give both, or "
            f"have the folder of the classes itself split (from={there})"
        )
    unused = sorted(folder.name for folder in folders.values() if folder not in (train[0], test[0]))
    notes = [f"trained on {train[0].name}/, tested on {test[0].name}/; not used: {', '.join(unused)}"] if unused else []
    return {"train": train[0], "test": test[0]}, notes


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _images(folder: Path) -> Iterator[Path]:
    """The images below a folder. What is hidden (thumbnails, a Mac's ._ files) is none; a folder that may not be looked
    into raises OSError."""

    def stop(error: OSError) -> None:
        raise error

    if not folder.is_dir():
        return
    for where, below, files in os.walk(folder, onerror=stop):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(where, name) for name in files if name.lower().endswith(ENDINGS) and not name.startswith("."))


def _drawn(images: dict[str, list[Path]], how: How) -> dict[str, dict[str, list[Path]]]:
    """A split of each class; the draws of one class do not depend on the others."""
    split: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for name, paths in images.items():
        order = np.random.default_rng([how.seed, zlib.crc32(os.fsencode(name))]).permutation(len(paths))
        held = set(order[: max(round(len(paths) * how.test_share), 1)].tolist())
        split["test"][name] = [path for number, path in enumerate(paths) if number in held]
        split["train"][name] = [path for number, path in enumerate(paths) if number not in held]
    return split


def _read(
    paths: list[tuple[Path, int]], how: How, progress: Callable[[str], None], part: str, odd: Counter[str]
) -> NDArray[np.uint8]:
    """The pixels of images; `odd` counts what was done to some of them."""
    from PIL import Image, ImageOps

    made = np.empty((len(paths), SIDE, SIDE, 3), dtype=np.uint8)
    for number, (path, _) in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = _in_rgb(image, odd)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # a damaged image may break its reader in any way
            raise DataError(f"{path} cannot be read as an image ({error}): remove or mend it") from error
        if pixels.size != (SIDE, SIDE):
            if not how.resize:
                raise DataError(
                    f"{path} is {pixels.width} x {pixels.height}; networks here take {SIDE} x {SIDE}: resize=true cuts "
                    "the middle square out and scales it"
                )
            pixels = ImageOps.fit(pixels, (SIDE, SIDE), method=Image.Resampling.BICUBIC)
            odd[f"were scaled to {SIDE} x {SIDE}"] += 1
        made[number] = np.asarray(pixels)
        if (number + 1) % 5000 == 0:
            progress(f"{part}: {number + 1:,} of {len(paths):,} images read")
    return made


def _in_rgb(image: Image, odd: Counter[str]) -> Image:
    """An image in RGB, upright as its camera meant it, without transparency.

    Raises DataError for one of more than eight bits: how to scale those is not for us to guess.
    """
    from PIL import Image as images
    from PIL import ImageOps

    if image.mode not in MODES:
        raise DataError(f"its pixels are {image.mode}, not of eight bits: convert it first")
    if getattr(image, "n_frames", 1) > 1:
        odd["are animated: the first frame was taken"] += 1
    if image.getexif().get(274, 1) != 1:
        odd["were turned as their camera says"] += 1
    upright = ImageOps.exif_transpose(image)
    if upright.mode in CLEAR or "transparency" in upright.info:
        odd["have transparency: it was laid on white"] += 1
        clear = upright.convert("RGBA")
        upright = images.alpha_composite(images.new("RGBA", clear.size, "white"), clear)
    return upright.convert("RGB")


def _from_arrays(source: Path) -> Gathered:
    there = set(own_data.names_in(source))
    names = {ours: ours if ours in there else theirs for ours, theirs in KERAS.items()}
    missing = [f"{ours} (or {KERAS[ours]})" for ours, name in names.items() if name not in there]
    if missing:
        raise DataError(f"from={source}: holds no {', '.join(missing)}")
    arrays: dict[str, NDArray[Any]] = {}
    with own_data.members(source) as array:
        for part in SPLITS:
            images = array(names[f"{part}_images"], _no_images)
            labels = array(names[f"{part}_labels"], _no_labels)
            if labels.size != len(images):
                raise DataError(f"from={source}: {part} has {len(images)} images and {labels.size} labels")
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = images, labels.reshape(-1).astype(np.int64)
    highest = max(int(arrays[f"{part}_labels"].max(initial=0)) for part in SPLITS)
    return Gathered(arrays, tuple(str(number) for number in range(min(highest, MOST_IMAGES) + 1)), ())


def _no_images(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    good = dtype == np.uint8 and shape[1:] == (SIDE, SIDE, 3) and shape[0] <= MOST_IMAGES
    return "" if good else f"not uint8 [n, {SIDE}, {SIDE}, 3] with n up to {MOST_IMAGES:,}"


def _no_labels(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    good = dtype.kind in "iu" and shape[1:] in ((), (1,)) and shape[:1] != () and shape[0] <= MOST_IMAGES
    return "" if good else "not integers [n]"


def _in_both(arrays: Arrays) -> Iterator[str]:
    """A line where test images are training images, too: an accuracy on those says nothing."""
    seen = {hashlib.sha256(image).digest() for image in arrays["train_images"]}
    both = sum(hashlib.sha256(image).digest() in seen for image in arrays["test_images"])
    if both:
        yield f"{both} of {len(arrays['test_images'])} test images are training images, too: their accuracy is no test"
