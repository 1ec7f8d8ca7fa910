"""The torch engine itself: a network's tensors in one number format and one memory layout, run eagerly."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import UserError
from benchmark.plan.deployment import BuildOrder
from benchmark.plan.stage import EngineFile, Network, digest_of
from benchmark.vision.network import load

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
TRIAL_S = 0.5
TRIAL_BATCH = 128


class EngineError(UserError):
    """An engine cannot run a network as asked; the message says why."""


def build(order: BuildOrder) -> EngineFile:
    """The engine of a network as data. Raises EngineError where torch has not that precision."""
    if order.precision not in DTYPES:
        raise EngineError(f"the torch engine has no {order.precision}: choose deploy_precision=fp32 or fp16")
    network = order.network
    layout = _layout(order)
    executes = {
        "precision": order.precision,
        "layout": layout,
        "library": f"torch {torch.__version__}",
        "switches": {"tf32": False, "cudnn_benchmark": order.device.startswith("cuda")},
    }
    return EngineFile(
        kind="torch",
        tensors={name: _cast(tensor, DTYPES[order.precision]) for name, tensor in network.tensors.items()},
        facts={"builder": network.builder, "kwargs": dict(network.kwargs)},
        executes=executes,
        signature=signature(network, "torch", order.precision, layout),
        mean=network.mean,
        std=network.std,
    )


def signature(network: Network, kind: str, precision: str, layout: str) -> str:
    """Twelve hexadecimal digits of everything that decides an inference's arithmetic: builder, arguments, tensor
    shapes, the engine, and what it executes."""
    return digest_of([*_shape(network), kind, precision, layout])[:12]


def _shape(network: Network) -> list[Any]:
    shapes = {name: list(tensor.shape) for name, tensor in network.tensors.items()}
    return [network.builder, dict(network.kwargs), shapes]


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _layout(order: BuildOrder) -> str:
    """Channels last on a CPU; on a GPU the faster of the two, for strict fp32 has no tensor cores to feed and may be
    slower so. The trial is made once per machine, shape and precision: two networks of one shape must not differ in it.
    """
    if not order.device.startswith("cuda"):
        return "channels_last"
    what = json.dumps(["layout", "torch", torch.__version__, order.precision, digest_of(_shape(order.network))])
    chosen = order.choose(what, lambda: _faster(order))
    if chosen not in LAYOUTS:
        raise EngineError(f"the layout kept for this machine is {chosen!r}: remove its file under results/devices")
    return chosen


def _faster(order: BuildOrder) -> str:
    """The layout in which more batches are done in a second."""
    network, executes = order.network, {"precision": order.precision, "switches": {"cudnn_benchmark": True}}
    facts = {"builder": network.builder, "kwargs": dict(network.kwargs)}
    done: dict[str, float] = {}
    for layout in LAYOUTS:
        built = EngineFile(
            "torch", network.tensors, facts, {**executes, "layout": layout}, "", network.mean, network.std
        )
        done[layout] = _speed(Eager(built, order.device))
    return max(done, key=lambda layout: done[layout])


def _speed(engine: Eager) -> float:
    """Calls per second, after a warm-up in which algorithms are picked."""
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
    """PyTorch in eager and inference mode. fp32 is strict: TF32 stays off.

    cuDNN picks its algorithms by trial (on a GPU): batch sizes are fixed, and what a training in this process had asked
    for must not matter.
    """

    def __init__(self, built: EngineFile, device: str) -> None:
        self.executes: Mapping[str, Any] = dict(built.executes)
        self.device = device
        self._dtype = DTYPES[built.executes["precision"]]
        self._format = LAYOUTS[built.executes["layout"]]
        self._benchmark = bool(built.executes["switches"]["cudnn_benchmark"])
        facts = built.facts
        module = load(Network(facts["builder"], facts["kwargs"], built.tensors, built.mean, built.std))
        self._module = module.to(device, self._dtype, memory_format=self._format)  # type: ignore[call-overload] # torch's stub lacks dtype beside memory_format

    def prepare(self, images: Tensor) -> Tensor:
        """A batch as this engine wants it: on the device, in its number format and memory layout."""
        return images.to(self.device, self._dtype).contiguous(memory_format=self._format)

    @torch.inference_mode()
    def __call__(self, prepared: Tensor) -> Tensor:
        """Logits [n, classes] of a prepared batch."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = self._benchmark
        return self._module(prepared)  # type: ignore[no-any-return] # nn.Module calls are untyped

    def synchronise(self) -> None:
        """Wait for the GPU; a CPU has nothing to wait for."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
