"""Fetches the original CIFAR files through torchvision: the only place, beside the nni bridge, that imports it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmark.plan.task import Data
from benchmark.vision.files import CIFAR, DataError, missing_files, verify

SILENT_S = 60.0
_kept: list[Any] = []
"""Operator libraries registered by `import_torchvision`; they must outlive the import."""


@functools.cache
def import_torchvision() -> Any:
    """The module `torchvision.datasets`, even if a CUDA wheel of torchvision is installed with a CPU-only torch.

    In that case the compiled part of torchvision cannot load, and the import fails because two operators are not
    declared. This suite never calls them, so it only declares them (seen with torchvision 0.28.0 on torch 2.13.0).
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise DataError("torchvision is not installed: pip install 'torchvision>=0.24,<0.29'")
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call] # torch leaves it untyped
    except OSError:
        if _kept:  # a process can declare an operator only once
            return importlib.import_module("torchvision.datasets")
        operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call] # same
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            operators.define(schema)  # type: ignore[no-untyped-call] # same
        _kept.append(operators)
    return importlib.import_module("torchvision.datasets")


def ensure(data: Data, root: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Download the missing files of a data set to `root`, and check that all its files are intact.

    `say` is given a line before a download. A server that is silent for SILENT_S seconds is given up. Raises DataError
    where the download fails, with the files to put there by hand, and where a file is damaged, or a user's own missing.
    """
    missing = missing_files(data, root)
    if missing and not data.own:
        say(f"downloading {data.name} to {root} (about 170 MB; a server that is silent for {SILENT_S:g} s is given up)")
        _download(data.name, root, missing)
    verify(data, root)


@contextlib.contextmanager
def _no_silence() -> Iterator[None]:
    """Whatever waits for a socket gives up after a while: torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(name: str, root: Path, missing: list[Path]) -> None:
    try:
        datasets = import_torchvision()
        dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        root.mkdir(parents=True, exist_ok=True)
        with _no_silence():
            dataset(root=str(root), download=True)
    except DataError:
        raise
    except (
        Exception
    ) as error:  # torchvision passes on whatever its transport raises: URLError, OSError, RuntimeError, ...
        files = ", ".join(str(path) for path in missing)
        raise DataError(
            f"{name} is not under {root} and could not be downloaded ({type(error).__name__}: {error}). "
            f"Put the original python files there by hand: {files} (folder {CIFAR[name].folder} of the "
            "'python version' archive), or point paths.data at them, or try data=synthetic"
        ) from error
