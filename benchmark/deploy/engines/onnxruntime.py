"""ONNX Runtime on the CPU: runs every precision of the study without a GPU. Importing this imports no engine."""

from __future__ import annotations

import importlib.util

from benchmark.plan.deployment import Buffers, BuildOrder, Engine, EngineKind
from benchmark.plan.stage import EngineFile
from benchmark.plan.task import DeployPrecision

NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""Modules: the file format, the engine, and the library that torch's exporter uses."""


class OnnxRuntime:
    """Runs exported networks on the CPU: fp32, fp16 (weights only: it computes in fp32) and INT8."""

    name = "onnxruntime"
    preference = 10
    buffers: tuple[Buffers, ...] = ("torch",)

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Empty on a CPU where its packages are installed, for fp32, fp16 and INT8."""
        if device_kind != "cpu":
            return "ONNX Runtime is used on the CPU only: its energy says nothing about a GPU"
        absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if absent:
            return f"{' and '.join(absent)} not installed: pip install -e '.[onnx]'"
        if precision == "bf16":
            return "ONNX Runtime has no bf16 convolutions on a CPU: choose engine=torch"
        if precision == "tf32":
            return "tf32 needs a GPU"
        return ""

    def version(self) -> str:
        """onnxruntime's version, without importing it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("onnxruntime")
        except PackageNotFoundError:
            return "absent"

    def prove(self, precision: DeployPrecision, device: str) -> None:
        """Import the libraries that export and run. Raises EngineError."""
        from benchmark.deploy.export import warm_up

        warm_up()

    def build(self, order: BuildOrder) -> EngineFile:
        """The exported network in its precision, and the graph that ONNX Runtime makes of it on this machine."""
        from benchmark.deploy.ort import build

        return build(order)

    def load(self, built: EngineFile, device: str, buffers: Buffers = "torch") -> Engine:
        """A session on the CPU."""
        from benchmark.deploy.ort import OrtEngine

        return OrtEngine(built)


KIND: EngineKind = OnnxRuntime()
