"""PyTorch as an engine: eager, channels last or contiguous, inference mode. Importing this imports no torch."""

from __future__ import annotations

import importlib.util

from benchmark.plan.deployment import Buffers, BuildOrder, Engine, EngineKind
from benchmark.plan.stage import EngineFile
from benchmark.plan.task import DeployPrecision


class PyTorch:
    """Runs a network as it was trained: fp32 and bf16 anywhere, TF32 and fp16 on a GPU."""

    name = "torch"
    preference = 0
    buffers: tuple[Buffers, ...] = ("torch",)

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Empty for fp32 and bf16, and for TF32 and fp16 on a GPU."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        if precision == "int8":
            return "torch has no INT8 convolutions; TensorRT has them on a GPU, ONNX Runtime on a CPU"
        if precision in ("tf32", "fp16") and device_kind != "cuda":
            return f"torch runs {precision} on a GPU only; fp32 and bf16 everywhere"
        return ""

    def version(self) -> str:
        """torch's version, without importing it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("torch")
        except PackageNotFoundError:
            return "absent"

    def prove(self, precision: DeployPrecision, device: str) -> None:
        """Does nothing, because training has imported torch already."""

    def build(self, order: BuildOrder) -> EngineFile:
        """The network's tensors in the engine's precision, and the memory layout to run them in."""
        from benchmark.deploy.eager import build

        return build(order, self.name)

    def load(self, built: EngineFile, device: str, buffers: Buffers = "torch") -> Engine:
        """The engine on its device."""
        from benchmark.deploy.eager import Eager

        return Eager(built, device)


KIND: EngineKind = PyTorch()
