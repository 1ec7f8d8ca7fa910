"""TensorRT, the engine of the paper. Importing this imports no engine."""

from __future__ import annotations

from benchmark.deploy.trt.probe import library_version, why_not
from benchmark.plan.deployment import Buffers, BuildOrder, Engine, EngineKind
from benchmark.plan.stage import EngineFile
from benchmark.plan.task import DeployPrecision


class TensorRT:
    """Runs exported networks on a GPU in fp32, TF32, fp16 and INT8, with TensorRT 10 or 11."""

    name = "tensorrt"
    preference = 20
    buffers: tuple[Buffers, ...] = ("torch", "pycuda")

    def why_unavailable(self, precision: DeployPrecision, device_kind: str) -> str:
        """Empty on a GPU where TensorRT and its libraries are installed and a driver runs."""
        if device_kind != "cuda":
            return "TensorRT needs a GPU"
        if precision == "bf16":
            return "the exported file has no bf16 convolutions: choose engine=torch"
        return why_not()

    def version(self) -> str:
        """TensorRT's version, without importing it."""
        return library_version()

    def prove(self, precision: DeployPrecision, device: str) -> None:
        """Import the libraries that export and build, and make a builder. Raises EngineError."""
        from benchmark.deploy.export import warm_up
        from benchmark.deploy.trt.make import prove

        warm_up()
        prove()

    def build(self, order: BuildOrder) -> EngineFile:
        """The exported network in its precision, built for this GPU."""
        from benchmark.deploy.trt.make import engine_file

        return engine_file(order)

    def load(self, built: EngineFile, device: str, buffers: Buffers = "torch") -> Engine:
        """The engine on its GPU."""
        from benchmark.deploy.trt.make import load

        return load(built, device, buffers)


KIND: EngineKind = TensorRT()
