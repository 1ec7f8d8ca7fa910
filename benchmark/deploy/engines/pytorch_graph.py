"""PyTorch replayed from CUDA graphs: the same kernels as the engine `torch`, without Python's launches."""

from __future__ import annotations

from benchmark.deploy.engines.pytorch import PyTorch
from benchmark.plan.deployment import Buffers, Engine, EngineKind
from benchmark.plan.stage import EngineFile
from benchmark.plan.task import DeployPrecision


class PyTorchGraph(PyTorch):
    """As `torch`, on a GPU only. engine=auto never chooses it: it exists to measure the cost of Python's launches."""

    name = "torch_graph"
    preference = -1

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Empty for what torch can do on a GPU."""
        if device_kind != "cuda":
            return "CUDA graphs need a GPU"
        return super().why_unavailable(precision, device_kind)

    def load(self, built: EngineFile, device: str, buffers: Buffers = "torch") -> Engine:
        """The engine on its device."""
        from benchmark.deploy.eager import Replayed
        from benchmark.vision.graph import graph_backend

        return Replayed(built, device, graph_backend(device))


KIND: EngineKind = PyTorchGraph()
