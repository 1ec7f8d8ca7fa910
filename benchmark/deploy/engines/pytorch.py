"""PyTorch as an engine: eager, channels last or contiguous, inference mode. Importing this imports no torch."""

from __future__ import annotations

import importlib.util

from benchmark.plan.deployment import BuildOrder, Engine, EngineKind
from benchmark.plan.stage import EngineFile
from benchmark.plan.task import DeployPrecision


class PyTorch:
    """Runs a network as it was trained: fp32 anywhere, fp16 on a GPU."""

    name = "torch"
    preference = 0

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Empty for fp32, and for fp16 on a GPU."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        if precision == "fp32" or (precision == "fp16" and device_kind == "cuda"):
            return ""
        return "the torch engine runs fp32 everywhere and fp16 on a GPU"

    def version(self) -> str:
        """torch's version, without importing it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("torch")
        except PackageNotFoundError:
            return "absent"

    def build(self, order: BuildOrder) -> EngineFile:
        """The network's tensors in the engine's precision, and the memory layout to run them in."""
        from benchmark.deploy.eager import build

        return build(order)

    def load(self, built: EngineFile, device: str) -> Engine:
        """The engine on its device."""
        from benchmark.deploy.eager import Eager

        return Eager(built, device)


KIND: EngineKind = PyTorch()
