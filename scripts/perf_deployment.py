"""Compares engines on this machine: microseconds per image, by precision and batch size.

usage: python scripts/perf_deployment.py [rounds]

Networks are untrained (speed does not depend on weights). Their batch norm statistics and INT8 ranges come from random
images. Without a GPU it compares ONNX Runtime with torch eager, in CPU time; it also compares fp32 with INT8 in both
Q/DQ layouts and with the session option that keeps int8 signed. With a GPU it compares torch eager with CUDA graphs, in
time. Last it prints the cost of the measurement loop beyond the engine's own time, and the time of export and
calibration.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from perf_common import Row, cpu_s, interleave, machine, ratios, show, spread

from benchmark.deploy import graphs, ort
from benchmark.deploy.engines import kind_named
from benchmark.deploy.export import export
from benchmark.deploy.graphs import arrays_of
from benchmark.deploy.quantization.collect import histograms
from benchmark.deploy.quantization.placement import targets
from benchmark.deploy.quantization.scales import activation_scale, weight_scales
from benchmark.deploy.quantization.thresholds import choose
from benchmark.plan.config import compose
from benchmark.plan.deployment import BuildOrder, Engine
from benchmark.plan.stage import Network
from benchmark.plan.task import DeployPrecision, Model, Recipe
from benchmark.vision.builders import build_model
from benchmark.vision.network import freeze

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if ON_GPU else "cpu"
NETWORKS = ("repdistiller/resnet8", "repdistiller/resnet56", "nni/vgg16")
BATCHES = (1, 16, 128)
CALIBRATION_IMAGES = 256
SAMPLE_S = 0.3
"""Seconds of one measurement."""
RECIPE = Recipe(name="perf", epochs=1, batch_size=32, lr=0.1, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Made(NamedTuple):
    """A network, its ONNX model in fp32, its INT8 scales, and the seconds that export and calibration took."""

    network: Network
    exported: Any
    scales: Mapping[str, Any]
    export_s: float
    calibration_s: float


def made(name: str, images: int = CALIBRATION_IMAGES) -> Made:
    """As `made_of`, for a network of the zoo."""
    from omegaconf import OmegaConf

    words = OmegaConf.to_container(compose([f"model={name}"]).model)
    assert isinstance(words, dict)
    return made_of(Model(name=name, builder=words["builder"], kwargs=words.get("kwargs") or {}), images)


def made_of(model: Model, images: int = CALIBRATION_IMAGES) -> Made:
    """An untrained network whose batch norm has seen random images, calibrated on `images` (a multiple of 32)."""
    from onnx import numpy_helper

    torch.manual_seed(0)
    module = build_model(model, 100).train()
    with torch.no_grad():
        module(torch.randn(32, 3, 32, 32))
    network = freeze(module.eval(), model, 100, RECIPE)
    began = time.perf_counter()
    exported = export(network)
    export_s = time.perf_counter() - began
    began, wanted = time.perf_counter(), targets(exported)
    shown = np.random.default_rng(0).standard_normal((images, 3, 32, 32), dtype=np.float32)
    seen = histograms(exported, wanted.all, np.split(shown, images // 32), torch.get_num_threads())
    activations = {name: activation_scale(choose(own, "entropy").amax) for name, own in seen.items()}
    held = {each.name: numpy_helper.to_array(each) for each in exported.graph.initializer}
    weights = {name: weight_scales(held[name], axis) for name, axis in wanted.weights.items()}
    scales = arrays_of(activations, weights)
    return Made(network, exported, scales, export_s, time.perf_counter() - began)


def engine(of: Made, kind: str, precision: DeployPrecision) -> tuple[Engine, str]:
    """An engine, loaded, and what it executes."""
    scales = of.scales if precision == "int8" else None
    order = BuildOrder(of.network, scales, precision, DEVICE, lambda what, decide: decide())
    own = kind_named(kind)
    built = own.build(order)
    return own.load(built, DEVICE), str(built.executes["precision"])


def caller(of: Engine, size: int) -> Callable[[], float]:
    """A function that runs for about `SAMPLE_S` and returns microseconds per image: CPU time, or time on a GPU."""
    batches = itertools.cycle([of.prepare(torch.randn(size, 3, 32, 32)) for _ in range(4)])

    def run(calls: int) -> float:
        clock = time.perf_counter if ON_GPU else cpu_s
        began = clock()
        for _ in range(calls):
            of(next(batches))
        of.synchronise()
        return 1e6 * (clock() - began) / (calls * size)

    run(12)  # every buffer three times: CUDA graphs are captured in the third
    pilot = 1e-6 * run(2) * size
    calls = max(1, round(SAMPLE_S / pilot))
    return lambda: run(calls)


def batch_rows(name: str, of: Made, rounds: int) -> None:
    """Print microseconds per image for every engine, precision and batch size."""
    kinds = [("torch", "fp32"), ("torch", "bf16")]
    kinds += [("torch_graph", "fp32"), ("torch_graph", "fp16")] if ON_GPU else []
    kinds += [] if ON_GPU else [("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("onnxruntime", "int8")]
    engines = {pair: engine(of, *pair) for pair in kinds}  # type: ignore[arg-type] # precisions, as literals
    print(f"{name}: {'' if ON_GPU else 'CPU-'}microseconds per image at batch {', '.join(map(str, BATCHES))}")
    for pair, (own, executes) in engines.items():
        costs = [_median(caller(own, size), rounds) for size in BATCHES]
        said = f" ({executes})" if executes != pair[1] else ""
        print(f"    {pair[0]} {pair[1]}{said}: " + ", ".join(f"{cost:.0f}" for cost in costs))


def _median(call: Callable[[], float], rounds: int) -> float:
    return statistics.median(call() for _ in range(rounds))


def rival_row(name: str, of: Made, rounds: int) -> None:
    """Compare this machine's engine with torch eager: fp32, batch 128, interleaved, with a control."""
    ours = "torch_graph" if ON_GPU else "onnxruntime"
    eager = caller(engine(of, "torch", "fp32")[0], 128)
    sides = {"rival": eager, "again": eager, "ours": caller(engine(of, ours, "fp32")[0], 128)}
    costs = interleave(sides, rounds)
    unit = "us per image" if ON_GPU else "CPU-us per image"
    what = f"{name}, fp32, batch 128: {ours} against torch eager"
    show(Row(what, 1.0, costs["rival"], costs["again"], costs["ours"], unit))


def layout_rows(name: str, of: Made, rounds: int) -> None:
    """Compare fp32 with INT8 in ONNX Runtime: in layout `ort`, with and without its default of uint8, and in `trt`."""
    exported = of.exported
    fp32 = exported.SerializeToString()
    files = {layout: graphs.quantized(exported, of.scales, layout).SerializeToString() for layout in ("ort", "trt")}
    ours, trt = files["ort"], files["trt"]
    sides = {"fp32": (fp32, False), "ort": (ours, False), "ort, signed": (ours, True), "trt": (trt, False)}
    runs: dict[str, Callable[[], float]] = {}
    for side, (content, signed) in sides.items():
        runs[side] = _session_cost(ort.open_session(content, ort.session_options(signed)))
    runs["fp32 again"] = runs["fp32"]
    costs = interleave(runs, rounds)
    print(f"{name}, INT8 in ONNX Runtime, batch 64: fp32's cost over each (above 1 is cheaper), n = {rounds}")
    for side in ("ort", "ort, signed", "trt", "fp32 again"):
        print(f"    {side}: {spread(ratios(costs['fp32'], costs[side]))}")


class _Session:
    """A session by itself, as an engine."""

    executes: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, session: Any) -> None:
        self._session = session

    def prepare(self, images: torch.Tensor) -> Any:
        return {"images": images.numpy()}

    def __call__(self, prepared: Any) -> Any:
        return self._session.run(None, prepared)

    def synchronise(self) -> None:
        """Does nothing, because a call returns only with its answer."""


def _session_cost(session: Any) -> Callable[[], float]:
    return caller(_Session(session), 64)


def overhead(name: str, of: Made, rounds: int) -> None:
    """Print the time of the inference protocol's loop beyond the engine's own calls."""
    own, _ = engine(of, "torch" if ON_GPU else "onnxruntime", "fp32")
    batch = itertools.cycle([own.prepare(torch.randn(128, 3, 32, 32)) for _ in range(4)])
    shares = []
    for _ in range(rounds):
        inside, began = 0.0, time.perf_counter()
        for _ in range(8):
            start = time.perf_counter()
            own(next(batch))
            inside += time.perf_counter() - start
        own.synchronise()
        shares.append(100 * (1 - inside / (time.perf_counter() - began)))
    if ON_GPU:
        print(f"{name}: calls are queued on a GPU; the loop's own share cannot be told by a host clock")
    else:
        print(f"{name}: the loop beyond the engine's own calls {spread(shares)} % of its time, allowed 2 %")


def main() -> int:
    """Print every table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(machine())
    for name in NETWORKS:
        of = made(name)
        print(
            f"{name}: export {of.export_s:.1f} s, calibration on {CALIBRATION_IMAGES} images {of.calibration_s:.1f} s"
        )
        batch_rows(name, of, min(rounds, 5))
        rival_row(name, of, rounds)
        if not ON_GPU:
            layout_rows(name, of, rounds)
        overhead(name, of, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
