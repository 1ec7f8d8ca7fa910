"""Parses and builds our exports with TensorRT-RTX, which needs no GPU, by the suite's own build function.

usage: python scripts/trt_check.py write FOLDER     one network per family, in fp32, fp16 and INT8, as ONNX files
       python scripts/trt_check.py build FOLDER     build every file there (needs the package tensorrt-rtx-cu13)

It shows that TensorRT's parser and builder accept our files. It is not a measurement, and TensorRT-RTX is not TensorRT:
its kernels, its layers' precisions and its speed are different.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.plan.task import Model

FAMILIES = (
    "repdistiller/vgg8", "nni/resnet18", "repdistiller/resnet8", "repdistiller/ResNet50", "repdistiller/wrn_16_1",
    "repdistiller/MobileNetV2", "repdistiller/ShuffleV1", "repdistiller/ShuffleV2",
)  # fmt: skip  # a list of names reads best in rows
CAPABILITY = "SM86"
"""The compute capability to build for, because there is no GPU here to ask."""


def write(folder: Path) -> int:
    """Write untrained networks, calibrated on random images, because a parser's input does not depend on weights."""
    from perf_deployment import made, made_of  # here, because the environment that builds has no torch

    from benchmark.deploy.graphs import half, quantized

    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FAMILIES, *searched()):
        own = made(name, images=32) if name in FAMILIES else made_of(searched()[name], images=32)
        files = {"fp32": own.exported, "fp16": half(own.exported), "int8": quantized(own.exported, own.scales, "trt")}
        for precision, model in files.items():
            (folder / f"{name.replace('/', '.')}.{precision}.onnx").write_bytes(model.SerializeToString())
        print(f"{name}: written", flush=True)
    return 0


def searched() -> dict[str, Model]:
    """One small network of each search space: cells, blocks and trees."""
    from methods.nas import spaces
    from methods.nas.darts.genotype import PUBLISHED
    from methods.nas.stages import derived

    blocks, trees = spaces.pmb("xs"), spaces.tree("b2")
    cells = derived(spaces.darts(4, 3), {"genotype": PUBLISHED["DARTS_V2"]})
    drawn = [derived(space.model, space.architecture(space.draw(0, 0))) for space in (blocks, trees)]
    return {model.name: model for model in (cells, *drawn)}


def build(folder: Path) -> int:
    """Build every file; returns 1 where one is refused."""
    from benchmark.deploy.trt.build import Settings
    from benchmark.deploy.trt.build import build as build_engine
    from benchmark.plan.deployment import EngineError

    trt = importlib.import_module("tensorrt_rtx")
    print(f"TensorRT-RTX {trt.__version__}, built for {CAPABILITY}, without a GPU")
    paths, failed = sorted(folder.glob("*.onnx")), 0
    for path in paths:
        began = time.perf_counter()
        settings = Settings(tf32=False, tops=(1, 8, 128), capabilities=(CAPABILITY,))
        try:
            plan = build_engine(trt, path.read_bytes(), settings).plan
        except EngineError as error:
            print(f"{path.name}: REFUSED: {error}")
            failed += 1
            continue
        print(f"{path.name}: {len(plan) / 1e6:.2f} MB in {time.perf_counter() - began:.1f} s")
    print(f"{len(paths) - failed} of {len(paths)} built")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    command = {"write": write, "build": build}.get(sys.argv[1] if len(sys.argv) == 3 else "")
    sys.exit(command(Path(sys.argv[2])) if command else __doc__)
