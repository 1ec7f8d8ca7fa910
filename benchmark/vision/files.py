"""The files of data sets: what they hold as arrays, whether they are there, and whether they are what they should be.

Source: the original python files of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), recognised by their published md5 sums.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import UserError
from benchmark.plan.task import Data
from benchmark.vision import own_data

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels [n, 3, 32, 32] and labels [n]."""


class DataError(UserError):
    """A data set is missing, damaged or unknown; the message says what to do."""


class Files(NamedTuple):
    """Where a CIFAR data set's original files lie, with their md5 sums, and the name of the label list inside them."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    labels: str


CIFAR = {
    "cifar10": Files(
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        labels="labels",
    ),
    "cifar100": Files(
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        labels="fine_labels",
    ),
}
"""Published md5 sums, as torchvision.datasets lists them."""


def read(data: Data, root: Path) -> tuple[Split, Split]:
    """Training and test split of a data set that has files. Raises DataError where these are missing or damaged."""
    if data.own:
        arrays = _own(data, root)
        return own_data.split(arrays, "train"), own_data.split(arrays, "test")
    files = CIFAR[data.name]
    return _cifar(root / files.folder, files.train, files.labels), _cifar(root / files.folder, files.test, files.labels)


def missing_files(data: Data, root: Path) -> list[Path]:
    """The files of a data set that are not under `root` yet; empty for a data set without files."""
    if data.own:
        wanted = [own_data.path_of(data, root)]
    else:
        files = CIFAR.get(data.name)
        wanted = [root / files.folder / file for file in (*files.train, *files.test)] if files else []
    return [path for path in wanted if not path.is_file()]


def verify(data: Data, root: Path) -> None:
    """Raise DataError where a file of a data set is missing or damaged; reads all files and keeps nothing in memory."""
    if data.own:
        _own(data, root)
    elif data.name in CIFAR:
        files = CIFAR[data.name]
        for file, md5 in {**files.train, **files.test}.items():
            _whole(root / files.folder / file, md5)


def _own(data: Data, root: Path) -> own_data.Arrays:
    path = own_data.path_of(data, root)
    remedy = "put the file there whose content this is, or make file and YAML anew: python -m benchmark data"
    try:
        arrays = own_data.read(path, data.train_images, data.test_images, data.classes)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: {remedy}") from error
    except ValueError as error:
        raise DataError(f"{path} is not what data={data.name} says: {error}: {remedy}") from error
    found = own_data.digest(arrays)
    if found != data.sha256:
        raise DataError(f"{path} has other content than data={data.name} says (sha256 {found}): {remedy}")
    return arrays


def _cifar(folder: Path, files: dict[str, str], label_key: str) -> Split:
    pixels, labels = [], []
    for file, md5 in files.items():
        batch = _unpickle(folder / file, md5)
        pixels.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels += batch[label_key]
    return np.concatenate(pixels), np.asarray(labels, dtype=np.int64)


def _unpickle(path: Path, md5: str) -> dict[str, Any]:
    """The content of a file whose md5 sum is the published one, because any other pickle could run arbitrary code."""
    return pickle.loads(_whole(path, md5), encoding="latin1")  # type: ignore[no-any-return] # the md5 sum vouches for it


def _whole(path: Path, md5: str) -> bytes:
    """The bytes of a file. Raises DataError unless their md5 sum is `md5`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is damaged ({len(content):,} bytes, md5 {found}, published md5 {md5}): "
            "delete it and run again to download it, or put the original file there"
        )
    return content
