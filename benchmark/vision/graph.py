"""A training step replayed from CUDA graphs, one graph for each batch size. Knows nothing of models or losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""Steps of each batch size that run eagerly before the capture, as torch's notes on CUDA graphs ask. Libraries
initialise and choose their algorithms in these steps. They are ordinary training steps, not extra ones."""


_failures: list[str] = []
"""Why captures of this process failed. After one failure nothing is captured any more: a broken capture can be ended,
but no version of torch or CUDA promises that it leaves no trace."""


class Backend(Protocol):
    """The CUDA functions that capturing needs; a test provides its own."""

    def stream(self) -> AbstractContextManager[Any]:
        """The stream on which all steps of an epoch run, captured or not."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the device operations of `work` without executing them; returns the function that executes them."""

    def abandon(self) -> None:
        """After a failed capture: end everything it left open, so that eager steps run as if it had not happened."""


class Cuda:
    """CUDA itself: a side stream (the default stream cannot be captured) and a memory pool shared by all graphs.

    Sharing is safe because no graph reads what another graph left in the pool: everything that lasts from one step to
    the next (weights, momenta, sums) lies outside the pool.
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # untyped in torch
        self._pool = torch.cuda.graph_pool_handle()
        self._latest: torch.cuda.CUDAGraph | None = None

    @property
    def side(self) -> torch.cuda.Stream:
        """The side stream itself, for libraries that queue kernels on it by its address."""
        return self._stream

    def stream(self) -> AbstractContextManager[Any]:
        """The side stream, after all that was queued before."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return torch.cuda.stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of `work`. Raises RuntimeError where `work` does what a graph cannot hold."""
        graph = self._latest = torch.cuda.CUDAGraph()
        # thread_local: another thread of this process (an energy sampler) must not break the capture
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

    def abandon(self) -> None:
        """See `Backend`. Torch up to 2.11 stops in the middle of ending a broken capture (pytorch pull 180395): its
        allocator continues to fill the graph's pool, and its generator refuses to draw outside a capture.

        The graph stays alive in this object because parts that torch has not ended may still point to it.
        """
        index = self._stream.device.index
        if self._latest is not None:
            with suppress(RuntimeError):
                self._latest.reset()
        with suppress(RuntimeError):  # torch raises if it has ended the capture itself; nothing to release then
            torch._C._cuda_endAllocateToPool(index, self._pool)
            torch._C._cuda_releasePool(index, self._pool)
        # a copy has the seed and the position of the draws, but not the capture state
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())


def graph_backend(device: str) -> Backend | None:
    """The backend of a torch device; None where it has no graphs."""
    return Cuda(device) if torch.device(device).type == "cuda" else None


class Graphed:
    """`work(rows)` for int64 rows [b, k], replayed from a graph for each b once that size was seen `WARM_UP` times.

    `reason` says why the steps run eagerly; it is empty while graphs are possible. After a failed capture `reason` is
    set, and this training and all later training of the process run eagerly. A capture executes nothing, so nothing is
    lost or done twice. `capturing` makes a context that is active during each capture.
    """

    def __init__(
        self,
        work: Callable[[Tensor], None],
        backend: Backend | None,
        reason: str = "",
        capturing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._work = work
        self._capturing = capturing
        self._backend = backend
        self._kind: Hashable = None
        self._seen: Counter[int] = Counter()
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}
        earlier = f"an earlier capture of this process failed ({_failures[0]})" if _failures else ""
        self.reason = reason or ("" if backend else "this device has no graphs") or earlier
        self.replays = 0

    @property
    def sizes(self) -> list[int]:
        """The batch sizes that have a graph."""
        return sorted(self._graphs)

    def renew(self, kind: Hashable) -> None:
        """Name the kind of the next steps: graphs of another kind are dropped, and captured again."""
        if kind != self._kind:
            self._kind = kind
            self._seen.clear()
            self._graphs.clear()

    def __call__(self, rows: Tensor) -> None:
        """One step on `rows`."""
        size = len(rows)
        self._seen[size] += 1
        if self._seen[size] > WARM_UP and size not in self._graphs and not self.reason:
            self._capture(rows)
        if size not in self._graphs:
            self._work(rows)
            return
        static, replay = self._graphs[size]
        static.copy_(rows)
        replay()
        self.replays += 1

    def _capture(self, rows: Tensor) -> None:
        assert self._backend is not None, "without a backend there is a reason"
        static = rows.clone()
        try:
            with self._capturing():
                self._graphs[len(rows)] = static, self._backend.capture(lambda: self._work(static))
        except BaseException as error:
            self._graphs.clear()  # one rule for the whole run: either every size may be replayed or none
            self._backend.abandon()
            # ending a broken capture raises an error of its own, which hides the real cause
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            _failures.append(str(cause).partition("\n")[0])
            self.reason = f"capture failed: {_failures[-1]}"
            if not isinstance(error, RuntimeError):  # a fault of the step, or an interruption
                raise
