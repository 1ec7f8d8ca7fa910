"""Makes a TensorRT engine file from an order, and loads it; the file is bound to one kind of GPU and one version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from benchmark.deploy.export import INPUT, OUTPUT
from benchmark.deploy.graphs import Layout, graph_of
from benchmark.deploy.signature import signature
from benchmark.deploy.trt.buffers import memory_of
from benchmark.deploy.trt.build import TOPS, Built, Settings, build, layers_of, logger_of, make_builder
from benchmark.deploy.trt.probe import library
from benchmark.deploy.trt.run import TensorRTEngine
from benchmark.plan.deployment import Buffers, BuildOrder, EngineError
from benchmark.plan.stage import EngineFile
from benchmark.records.files import StoreError, replace

LAYOUT: Layout = "trt"


def prove() -> None:
    """Import TensorRT and make a builder. Raises EngineError."""
    trt = library()
    make_builder(trt, logger_of(trt))


def engine_file(order: BuildOrder) -> EngineFile:
    """Build the engine of a network. Raises EngineError."""
    trt = library()
    onnx = graph_of(order, LAYOUT)
    cache = timing_cache_path(str(trt.__version__), gpu_of(order.device))
    before = cache.read_bytes() if cache.is_file() else b""
    built = build(trt, onnx, Settings(tf32=order.precision == "tf32", timing_cache=before))
    note = _keep(cache, built)
    layers, classes = _look(trt, built)
    return EngineFile(
        kind="tensorrt",
        tensors={"plan": torch.frombuffer(bytearray(built.plan), dtype=torch.uint8)},
        facts={
            "input": INPUT,
            "output": OUTPUT,
            "classes": classes,
            "tops": list(TOPS),
            "version": str(trt.__version__),
            "gpu": gpu_of(order.device),
        },
        executes={
            "precision": layers.executed(order.precision),
            "layout": LAYOUT,
            "library": f"TensorRT {trt.__version__}",
            "switches": {"tf32": order.precision == "tf32"},
            "comparable_to_tensorrt": True,
        },
        signature=signature(order.network, "tensorrt", order.precision, LAYOUT),
        mean=order.network.mean,
        std=order.network.std,
        evidence={
            "layers": [dict(row) for row in layers.rows],
            "timing_cache": f"{len(before)} bytes before, {len(built.timing_cache)} after{note}",
            "log": built.log,
        },
    )


def _look(trt: Any, built: Built) -> tuple[Any, int]:
    """What the engine says about its layers, and its number of classes."""
    logger = logger_of(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(built.plan)
    if engine is None:
        raise EngineError(f"TensorRT cannot load the engine that it built: {'; '.join(logger.lines)}")
    return layers_of(trt, engine), int(tuple(engine.get_tensor_shape(OUTPUT))[-1])


def gpu_of(device: str) -> str:
    """The kind of GPU an engine is bound to, in words: name and compute capability."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} sm{major}{minor}"


def timing_cache_path(version: str, gpu: str) -> Path:
    """The file with the timings of kernels, so that equal layers get equal kernels and are tried only once."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "full-cycle-energy-benchmark" / f"tensorrt-{version}-{gpu.replace(' ', '-').replace('/', '-')}.timing"


def _keep(path: Path, built: Built) -> str:
    """Write the timing cache. On a full disk the next build takes longer, but no result is lost."""
    if not built.timing_cache:
        return ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, built.timing_cache)
    except (OSError, StoreError) as error:
        return f"; not kept: {error}"
    return ""


def load(built: EngineFile, device: str, buffers: Buffers) -> TensorRTEngine:
    """A built engine on its GPU. Raises EngineError where it belongs to another kind of GPU or another TensorRT."""
    trt = library()
    here = {"gpu": gpu_of(device), "version": str(trt.__version__)}
    for name, what in (("gpu", "GPU"), ("version", "TensorRT")):
        if built.facts[name] != here[name]:
            raise EngineError(f"the engine was built for {what} {built.facts[name]}, but this is {here[name]}")
    return TensorRTEngine(trt, built, memory_of(buffers, device))
