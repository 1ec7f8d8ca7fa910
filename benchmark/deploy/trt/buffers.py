"""The memory and the stream of a TensorRT engine: four calls, implemented by torch or by pycuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmark.plan.deployment import Buffers, EngineError
from benchmark.vision.graph import Cuda


class Memory(Protocol):
    """Memory and a stream on one GPU."""

    name: Buffers
    stream: int
    """The handle of the stream that everything runs on."""

    def hold(self, values: Tensor) -> tuple[int, Any]:
        """Copy a contiguous float32 tensor to the device; returns its address, and the object that keeps it alive."""

    def room(self, shape: tuple[int, ...]) -> tuple[int, Tensor]:
        """Allocate memory for float32 values; returns its address, and a tensor on the device over this memory."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Capture `work` in a CUDA graph; returns the function that replays it, or None where there are no graphs."""

    def synchronise(self) -> None:
        """Wait for the stream."""


class TorchMemory:
    """torch's allocator, a separate stream (the default stream would cost synchronisations), and CUDA graphs."""

    name: Buffers = "torch"

    def __init__(self, device: str) -> None:
        self._device = device
        self._graphs = Cuda(device)
        self.stream: int = self._graphs.side.cuda_stream

    def hold(self, values: Tensor) -> tuple[int, Tensor]:
        """See `Memory`."""
        held = values.to(self._device, torch.float32, copy=True).contiguous()
        torch.cuda.current_stream(self._device).synchronize()  # our own stream must not read before the copy is done
        return held.data_ptr(), held

    def room(self, shape: tuple[int, ...]) -> tuple[int, Tensor]:
        """See `Memory`."""
        made = torch.empty(shape, device=self._device)
        return made.data_ptr(), made

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """See `Memory`. Replays run on this memory's stream. Raises EngineError where a capture fails."""
        try:
            replay = self._graphs.capture(work)
        except RuntimeError as error:
            self._graphs.abandon()
            raise EngineError(f"the engine cannot be captured in a CUDA graph ({error})") from error

        def on_own_stream() -> None:
            with torch.cuda.stream(self._graphs.side):
                replay()

        return on_own_stream

    def synchronise(self) -> None:
        """See `Memory`."""
        self._graphs.side.synchronize()


def memory_of(buffers: Buffers, device: str) -> Memory:
    """The memory that was asked for. Raises EngineError where pycuda cannot be used."""
    if buffers == "torch":
        return TorchMemory(device)
    from benchmark.deploy.trt.pycuda_buffers import PycudaMemory

    return PycudaMemory(device)
