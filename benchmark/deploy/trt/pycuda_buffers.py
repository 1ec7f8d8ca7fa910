"""pycuda's memory and stream for a TensorRT engine, in the primary context, which torch uses too.

Never use `pycuda.autoinit`: it makes a second context, and every switch between the two would be billed to the engine.
pycuda has no CUDA graphs: each call is launched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmark.plan.deployment import Buffers, EngineError


class PycudaMemory:
    """See `benchmark.deploy.trt.buffers.Memory`."""

    name: Buffers = "pycuda"

    def __init__(self, device: str) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call] # untyped in torch
        torch.zeros(1, device=device)  # the primary context must exist before pycuda asks for it
        if torch.device(device).index not in (None, 0):
            raise EngineError("inference.buffers=pycuda: pycuda takes the primary context of the first GPU only")
        try:
            importlib.import_module("pycuda.autoprimaryctx")
            self._cuda: Any = importlib.import_module("pycuda.driver")
        except Exception as error:  # ImportError, or pycuda's own where the driver does not fit
            raise EngineError(
                f"inference.buffers=pycuda: {error}: pip install -e '.[pycuda]', or buffers=torch"
            ) from error
        self._stream = self._cuda.Stream()
        self.stream: int = self._stream.handle

    def hold(self, values: Tensor) -> tuple[int, Any]:
        """See `Memory`."""
        host = values.detach().to("cpu", torch.float32).contiguous().numpy()
        held = self._cuda.mem_alloc(host.nbytes)
        self._cuda.memcpy_htod(held, host)
        return int(held), held

    def room(self, shape: tuple[int, ...]) -> tuple[int, Tensor]:
        """See `Memory`. The tensor is a view of pycuda's memory; nothing is copied."""
        size = 4
        for each in shape:
            size *= each
        held = self._cuda.mem_alloc(size)
        return int(held), torch.as_tensor(_Seen(held, shape), device="cuda")

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """None: pycuda has no CUDA graphs."""
        return None

    def synchronise(self) -> None:
        """See `Memory`."""
        self._stream.synchronize()


class _Seen:
    """pycuda's memory as other libraries see it; it lives as long as the tensor that views it."""

    def __init__(self, held: Any, shape: tuple[int, ...]) -> None:
        self._held = held
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "<f4", "data": (int(held), False), "version": 3}
