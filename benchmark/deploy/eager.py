"""The torch engines: a network's tensors in one number format and memory layout, run eagerly or from a CUDA graph."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.deploy.signature import shape_of, signature
from benchmark.plan.deployment import BuildOrder, EngineError
from benchmark.plan.stage import EngineFile, Network, digest_of
from benchmark.vision.graph import Backend
from benchmark.vision.network import load

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""TF32 is float32 in memory; only the tensor cores round the factors."""
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
TRIAL_S = 0.5
TRIAL_BATCH = 128
CAPTURED_AT = 3
"""The number of the run in which a prepared batch is captured."""


def build(order: BuildOrder, kind: str = "torch") -> EngineFile:
    """The engine of a network as data. Raises EngineError where torch does not have the precision."""
    if order.precision not in DTYPES:
        raise EngineError(f"torch has no {order.precision} convolutions: choose deploy_precision={', '.join(DTYPES)}")
    network, on_gpu = order.network, order.device.startswith("cuda")
    layout = _layout(order)
    return EngineFile(
        kind=kind,
        tensors={name: _cast(tensor, DTYPES[order.precision]) for name, tensor in network.tensors.items()},
        facts={"builder": network.builder, "kwargs": dict(network.kwargs)},
        executes={
            "precision": order.precision,
            "layout": layout,
            "library": f"torch {torch.__version__}",
            "switches": {"tf32": order.precision == "tf32", "cudnn_benchmark": on_gpu},
            "comparable_to_tensorrt": False,
        },
        signature=signature(network, kind, order.precision, layout),
        mean=network.mean,
        std=network.std,
    )


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _layout(order: BuildOrder) -> str:
    """The memory layout: channels last on a CPU, the faster one on a GPU.

    On a GPU strict fp32 uses no tensor cores, so channels last may be slower there. The trial is made once per machine,
    shape and precision, because two networks of one shape must have the same layout.
    """
    if not order.device.startswith("cuda"):
        return "channels_last"
    what = json.dumps(["layout", "torch", torch.__version__, order.precision, digest_of(shape_of(order.network))])
    chosen = order.choose(what, lambda: _faster(order))
    if chosen not in LAYOUTS:
        raise EngineError(
            f"the layout stored for this machine is unknown: {chosen!r}. Remove its file under results/devices"
        )
    return chosen


def _faster(order: BuildOrder) -> str:
    """The layout that runs more batches per second."""
    network = order.network
    switches = {"cudnn_benchmark": True, "tf32": order.precision == "tf32"}
    executes = {"precision": order.precision, "switches": switches}
    facts = {"builder": network.builder, "kwargs": dict(network.kwargs)}
    done: dict[str, float] = {}
    for layout in LAYOUTS:
        built = EngineFile(
            "torch", network.tensors, facts, {**executes, "layout": layout}, "", network.mean, network.std
        )
        done[layout] = _speed(Eager(built, order.device))
    return max(done, key=lambda layout: done[layout])


def _speed(engine: Eager) -> float:
    """Calls per second, after a warm-up in which libraries choose their algorithms."""
    batch = engine.prepare(torch.rand(TRIAL_BATCH, 3, 32, 32))
    for _ in range(5):
        engine(batch)
    engine.synchronise()
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < TRIAL_S:
        for _ in range(10):
            engine(batch)
        engine.synchronise()
        calls += 10
    return calls / (time.perf_counter() - began)


class Eager:
    """PyTorch in eager and inference mode. fp32 is strict: TF32 is on only for the precision tf32.

    On a GPU cuDNN chooses its algorithms by trial, because batch sizes are fixed. The switches that a training in this
    process has set must not matter.
    """

    def __init__(self, built: EngineFile, device: str) -> None:
        self.executes: Mapping[str, Any] = dict(built.executes)
        self.device = device
        self._dtype = DTYPES[built.executes["precision"]]
        self._format = LAYOUTS[built.executes["layout"]]
        switches = built.executes["switches"]
        self._benchmark, self._tf32 = bool(switches["cudnn_benchmark"]), bool(switches["tf32"])
        facts = built.facts
        module = load(Network(facts["builder"], facts["kwargs"], built.tensors, built.mean, built.std))
        self._module = module.to(device, self._dtype, memory_format=self._format)  # type: ignore[call-overload] # torch's stub lacks dtype beside memory_format

    def prepare(self, images: Tensor) -> Any:
        """A batch as this engine needs it: on the device, in its number format and memory layout."""
        return images.to(self.device, self._dtype).contiguous(memory_format=self._format)

    @torch.inference_mode()
    def __call__(self, prepared: Any) -> Tensor:
        """Logits [n, classes] of a prepared batch."""
        return self._run(prepared)

    def _run(self, images: Tensor) -> Tensor:
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        torch.backends.cudnn.allow_tf32 = self._tf32
        torch.backends.cudnn.benchmark = self._benchmark
        return self._module(images)  # type: ignore[no-any-return] # nn.Module calls are untyped

    def synchronise(self) -> None:
        """Wait for the GPU; a CPU has nothing to wait for."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def strict(network: Network, device: str) -> Eager:
    """The network as it was trained, in strict fp32; engines are compared with it."""
    executes = {"precision": "fp32", "layout": "contiguous", "switches": {"tf32": False, "cudnn_benchmark": False}}
    facts = {"builder": network.builder, "kwargs": dict(network.kwargs)}
    return Eager(EngineFile("torch", network.tensors, facts, executes, "", network.mean, network.std), device)


@dataclass
class Batch:
    """A prepared batch of `Replayed`: its images, the number of its runs, and its graph once it has one."""

    images: Tensor
    runs: int = 0
    replay: Callable[[], None] | None = None
    logits: Tensor | None = None


class Replayed(Eager):
    """The same network, replayed from one CUDA graph per prepared batch, so that Python launches no kernels.

    A batch is captured in its third run, because libraries initialise in the first two. So a pass over a test set,
    which runs each batch once, pays for no capture. A failed capture is an EngineError: an engine must not silently
    become another engine.
    """

    def __init__(self, built: EngineFile, device: str, backend: Backend | None) -> None:
        super().__init__(built, device)
        if backend is None:
            raise EngineError("CUDA graphs need a GPU: choose engine=torch")
        self._backend = backend

    def prepare(self, images: Tensor) -> Batch:
        """A batch with its own memory on the device, because a graph reads from the address of its capture."""
        return Batch(super().prepare(images).clone(memory_format=torch.preserve_format))

    @torch.inference_mode()
    def __call__(self, prepared: Batch) -> Tensor:
        """Logits [n, classes] of a prepared batch, valid until the batch is run again."""
        prepared.runs += 1
        if prepared.runs == CAPTURED_AT:
            self._capture(prepared)
        if prepared.replay is None or prepared.logits is None:
            return self._run(prepared.images)
        prepared.replay()
        return prepared.logits

    def _capture(self, batch: Batch) -> None:
        def work() -> None:
            batch.logits = self._run(batch.images)

        try:
            with self._backend.stream():
                self._run(batch.images)  # once on the capture's stream: cuDNN has a workspace per stream
            batch.replay = self._backend.capture(work)
        except RuntimeError as error:
            self._backend.abandon()
            raise EngineError(
                f"the network cannot be captured in a CUDA graph ({error}): choose engine=torch"
            ) from error
