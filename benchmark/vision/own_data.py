"""A data set of the user's own: one .npz file of four arrays, known by the digest of its content. No torch.

`train_images` and `test_images` are uint8 [n, 32, 32, 3], RGB; `train_labels` and `test_labels` are int64 [n], from 0
to classes - 1.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmark.plan.task import Data

SIDE = 32
SPLITS = ("train", "test")
Arrays = Mapping[str, NDArray[Any]]


def path_of(data: Data, root: Path) -> Path:
    """Where the file of a data set lies."""
    return root / f"{data.name}.npz"


def digest(arrays: Arrays) -> str:
    """The SHA-256 of what the arrays hold, whatever file they lie in."""
    found = hashlib.sha256()
    for name in _names():
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.data)
    return found.hexdigest()


def split(arrays: Arrays, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels uint8 [n, 3, 32, 32] and labels int64 [n] of a split."""
    return np.ascontiguousarray(arrays[f"{name}_images"].transpose(0, 3, 1, 2)), arrays[f"{name}_labels"]


def read(path: Path, train_images: int, test_images: int, classes: int) -> dict[str, NDArray[Any]]:
    """The arrays of a file that must hold so many images: no more than these is ever read into memory.

    Nothing in the file is unpickled. Raises OSError where it cannot be read, and ValueError where it holds anything
    else.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, count in zip(SPLITS, (train_images, test_images), strict=True):
                images, labels = f"{name}_images", f"{name}_labels"
                arrays[images] = _array(archive, images, (count, SIDE, SIDE, 3), np.dtype(np.uint8))
                arrays[labels] = _array(archive, labels, (count,), np.dtype(np.int64))
    except KeyError as error:
        raise ValueError(str(error.args[0])) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no whole .npz file ({error})") from error
    check_labels(arrays, classes)
    return arrays


def check_labels(arrays: Arrays, classes: int) -> None:
    """Raise ValueError where a label is no class, or a class has no training image."""
    for name in SPLITS:
        labels = arrays[f"{name}_labels"]
        if len(labels) and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"{name}_labels go from {labels.min()} to {labels.max()}, and there are {classes} classes")
    without = sorted(set(range(classes)) - set(np.unique(arrays["train_labels"]).tolist()))
    if without:
        raise ValueError(f"{len(without)} of {classes} classes have no training image, the first is {without[0]}")


def write(path: Path, arrays: Arrays) -> None:
    """Write a data set's file, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **{name: arrays[name] for name in _names()})  # type: ignore[arg-type]  # it thinks of allow_pickle
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _names() -> list[str]:
    return [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        found = _header(file)
        if found != (shape, False, dtype):
            raise ValueError(f"{name} is {found[2]} {list(found[0])}, not {dtype} {list(shape)}")
        size = int(np.prod(shape)) * dtype.itemsize
        content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{name} ends early")
    return np.frombuffer(content, dtype).reshape(shape).copy()  # torch wants to be able to write


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether Fortran wrote it, and type, of an array in a file."""
    formats: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in formats:
        raise ValueError(f"arrays of format {version} are not read here")
    return cast(tuple[tuple[int, ...], bool, np.dtype[Any]], formats[version](file))
