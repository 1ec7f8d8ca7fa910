"""A data set of the user's own: one .npz file of four arrays, known by the digest of its content. No torch.

`train_images` and `test_images` are uint8 [n, 32, 32, 3], RGB; `train_labels` and `test_labels` are int64 [n], from 0
to classes - 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """The arrays of a file that must hold so many images, stored as `write` stores them: no more is read into memory
    than the file is long.

    Nothing in the file is unpickled. Raises OSError where it cannot be read, and ValueError where it holds anything
    else.
    """
    arrays: dict[str, NDArray[Any]] = {}

    def of(shape: tuple[int, ...], dtype: type) -> Callable[[tuple[int, ...], np.dtype[Any]], str]:
        wanted = np.dtype(dtype)
        return lambda found, kind: "" if (found, kind) == (shape, wanted) else f"not {wanted} {list(shape)}"

    with members(path, stored=True) as array:
        for name, count in zip(SPLITS, (train_images, test_images), strict=True):
            arrays[f"{name}_images"] = array(f"{name}_images", of((count, SIDE, SIDE, 3), np.uint8))
            arrays[f"{name}_labels"] = array(f"{name}_labels", of((count,), np.int64))
    check_labels(arrays, [str(number) for number in range(classes)])
    return arrays


Refusal = Callable[[tuple[int, ...], "np.dtype[Any]"], str]
"""Why an array of this shape and type is not wanted; empty where it is."""


@contextlib.contextmanager
def members(path: Path, stored: bool = False) -> Iterator[Callable[[str, Refusal], NDArray[Any]]]:
    """A function that reads an array of an .npz file by its name, if its shape and type are wanted; `stored` wants it
    uncompressed. Raises OSError where the file cannot be read, and ValueError where it is something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield lambda name, refused: _array(archive, name, refused, stored)
    except (OSError, ValueError):
        raise
    except KeyError as error:
        raise ValueError(str(error.args[0])) from error
    except Exception as error:  # a stranger's file may break the readers of zip, zlib and numpy in any way
        raise ValueError(f"it is no whole .npz file ({type(error).__name__}: {error})") from error


def names_in(path: Path) -> list[str]:
    """The names of the arrays in an .npz file. Raises as `members` does."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except OSError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"it is no whole .npz file ({type(error).__name__}: {error})") from error


def check_labels(arrays: Arrays, classes: Sequence[str]) -> None:
    """Raise ValueError where a label is no class, or a class has no training image."""
    for name in SPLITS:
        labels = arrays[f"{name}_labels"]
        if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
            there = f"there are {len(classes)} classes"
            raise ValueError(f"{name}_labels go from {labels.min()} to {labels.max()}, and {there}")
    without = sorted(set(range(len(classes))) - set(np.unique(arrays["train_labels"]).tolist()))
    if without:
        named = ", ".join(repr(classes[number]) for number in without[:5])
        raise ValueError(f"{len(without)} of {len(classes)} classes have no training image: {named}")


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


def _array(archive: zipfile.ZipFile, name: str, refused: Refusal, stored: bool) -> NDArray[Any]:
    if stored and archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, and files made here are not")
    with archive.open(f"{name}.npy") as file:
        shape, fortran, dtype = _header(file)
        why = refused(shape, dtype) or ("not in C order" if fortran else "")
        if why:
            raise ValueError(f"{name} is {dtype} {list(shape)}, {why}")
        size = int(np.prod(shape)) * dtype.itemsize
        if archive.getinfo(f"{name}.npy").file_size < size:
            raise ValueError(f"{name} ends early")
        array = np.empty(shape, dtype)
        if size and cast(io.BufferedIOBase, file).readinto(array.reshape(-1).view(np.uint8).data) != size:
            raise ValueError(f"{name} ends early")
    return array


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
