"""Whether TensorRT can be used here: the cheapest check first, and a sentence for each failure.

No TensorRT object is touched before the driver and a GPU have answered: without them its lean runtime does not raise
but crashes the process. The first checks import nothing, so planning may run them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.energy.meters.nvml import NvmlError, load_nvml
from benchmark.plan.deployment import EngineError

DISTRIBUTIONS = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
MAJORS = (10, 11)
"""The major versions that the same code serves: 10 still has implicit INT8 and calibrators, 11 does not; we use
neither."""
INSTALL = "pip install -e '.[gpu]' installs it from NVIDIA's own index (README)"


def why_not() -> str:
    """Why TensorRT cannot be used here, without importing it; '' where no reason is known."""
    return _package() or _libraries() or _driver() or _device()


def _package() -> str:
    return "" if importlib.util.find_spec("tensorrt") else f"TensorRT is not installed: {INSTALL}"


def _libraries() -> str:
    """Why the libraries are missing; only NVIDIA's index has them (3.7 GB), but any index has the bindings."""
    spec = importlib.util.find_spec("tensorrt_libs")
    folders = [*(spec.submodule_search_locations or [] if spec else [])]
    folders += [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    if any(path for folder in folders if Path(folder).is_dir() for path in Path(folder).glob("libnvinfer.so*")):
        return ""
    if ctypes.util.find_library("nvinfer"):
        return ""
    return f"TensorRT's Python package is installed, but its libraries (libnvinfer) are not: {INSTALL}"


def _driver() -> str:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "libcuda.so.1 cannot be loaded: there is no NVIDIA driver"
    return ""


def _device() -> str:
    try:
        count = len(load_nvml().gpus())
    except NvmlError as error:
        return f"NVML sees no GPU: {error}"
    return "" if count else "NVML sees no GPU"


def library_version() -> str:
    """TensorRT's version, without importing it; 'absent' where there is none."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "absent"


def library() -> Any:
    """TensorRT, imported. Raises EngineError, with the reason, where it cannot be used."""
    why = why_not()
    if why:
        raise EngineError(why)
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(f"TensorRT cannot be imported ({error}): its libraries do not fit; {INSTALL}") from error
    major = int(str(trt.__version__).partition(".")[0])
    if major not in MAJORS:
        raise EngineError(f"TensorRT {trt.__version__} is installed; {' and '.join(map(str, MAJORS))} are supported")
    return trt
