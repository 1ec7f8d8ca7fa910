"""Runs a built TensorRT engine: one context for each optimisation profile, batches that own their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmark.deploy.trt.buffers import Memory
from benchmark.deploy.trt.build import logger_of
from benchmark.plan.deployment import EngineError
from benchmark.plan.stage import EngineFile

CAPTURED_AT = 3
"""The number of the run in which a prepared batch is captured; a pass over a test set pays for no capture."""


@dataclass
class Batch:
    """Images on the device, memory for their logits, and how they are run."""

    size: int
    given: int
    held: Any
    answered: int
    logits: Tensor
    runs: int = 0
    replay: Callable[[], None] | None = None


class TensorRTEngine:
    """Runs an engine file on one GPU. Only `synchronise`, and code that reads logits, waits for the GPU."""

    def __init__(self, trt: Any, built: EngineFile, memory: Memory) -> None:
        self._memory = memory
        self._tops = [int(top) for top in built.facts["tops"]]
        self._names = (str(built.facts["input"]), str(built.facts["output"]))
        self._classes = int(built.facts["classes"])
        logger = logger_of(trt)
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(built.tensors["plan"].numpy().tobytes())
        if self._engine is None:
            raise EngineError(f"TensorRT does not load the engine: {'; '.join(logger.lines) or 'it gives no reason'}")
        self._contexts: dict[int, Any] = {}
        switches = {**built.executes["switches"], "buffers": memory.name, "cuda_graph": memory.name == "torch"}
        self.executes: Mapping[str, Any] = {**built.executes, "switches": switches}

    def prepare(self, images: Tensor) -> Batch:
        """A batch with its own memory. Raises EngineError where the engine was not built for so large a batch."""
        size = len(images)
        if size > self._tops[-1]:
            raise EngineError(f"a batch of {size} images: the engine was built for {self._tops[-1]} at most")
        given, held = self._memory.hold(images)
        answered, logits = self._memory.room((size, self._classes))
        return Batch(size, given, held, answered, logits)

    def __call__(self, prepared: Batch) -> Tensor:
        """Logits [n, classes] on the device: read them after `synchronise`; they are valid until the batch runs
        again."""
        prepared.runs += 1
        if prepared.runs == CAPTURED_AT:
            self._enqueue(prepared)  # with this batch's addresses: a context sets itself up outside the capture
            prepared.replay = self._memory.capture(lambda: self._launch(prepared))
        if prepared.replay is not None:
            prepared.replay()
        else:
            self._enqueue(prepared)
        return prepared.logits

    def synchronise(self) -> None:
        """Wait for all queued batches."""
        self._memory.synchronise()

    def _enqueue(self, batch: Batch) -> None:
        context = self._context(batch.size)
        context.set_input_shape(self._names[0], (batch.size, 3, 32, 32))
        context.set_tensor_address(self._names[0], batch.given)
        context.set_tensor_address(self._names[1], batch.answered)
        self._launch(batch)

    def _launch(self, batch: Batch) -> None:
        if not self._context(batch.size).execute_async_v3(self._memory.stream):
            raise EngineError(f"TensorRT did not run a batch of {batch.size} images")

    def _context(self, size: int) -> Any:
        """The context of the profile that serves this many images."""
        index = next(number for number, top in enumerate(self._tops) if size <= top)
        if index not in self._contexts:
            context = self._engine.create_execution_context()
            if context is None or not context.set_optimization_profile_async(index, self._memory.stream):
                raise EngineError(f"the GPU has no memory for a TensorRT context of up to {self._tops[index]} images")
            self._contexts[index] = context
        return self._contexts[index]
