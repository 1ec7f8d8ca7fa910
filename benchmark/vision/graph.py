"""A training step replayed from CUDA graphs, one graph for each batch size. Knows nothing of models or losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP = 3
"""Steps of each batch size that run eagerly before it is captured, as torch's notes on CUDA graphs ask: libraries set
themselves up and pick their algorithms in them. They are steps of the training, not extra ones."""


class Backend(Protocol):
    """What capturing needs of CUDA; a test brings its own."""

    def stream(self) -> AbstractContextManager[Any]:
        """Where all work of an epoch runs, captured or not."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` would do on the device, without doing it; returns the function that does it."""


class Cuda:
    """The real thing: a side stream (the default one cannot be captured) and a memory pool shared by all graphs.

    Sharing is sound because no graph reads what another left in the pool: all that lives on between steps (weights,
    momenta, sums) lies outside.
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # untyped in torch
        self._pool = torch.cuda.graph_pool_handle()

    def stream(self) -> AbstractContextManager[Any]:
        """The side stream, after all that was queued before."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return torch.cuda.stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of `work`. Raises RuntimeError where `work` does what a graph cannot hold."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread of this process (an energy sampler) must not break the capture
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def graph_backend(device: str) -> Backend | None:
    """The backend of a torch device; None where it has no graphs."""
    return Cuda(device) if torch.device(device).type == "cuda" else None


class Graphed:
    """`work(rows)` for int64 rows [b, k], replayed from a graph for each b once that size was seen `WARM_UP` times.

    `reason` says why it runs eagerly, and is empty while nothing speaks against graphs. A failed capture gives such a
    reason and training goes on eagerly: a capture executes nothing, so nothing is lost or done twice.
    """

    def __init__(self, work: Callable[[Tensor], None], backend: Backend | None, reason: str = "") -> None:
        self._work = work
        self._backend = backend
        self._seen: Counter[int] = Counter()
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}
        self.reason = reason or ("" if backend else "this device has no graphs")
        self.replays = 0

    @property
    def sizes(self) -> list[int]:
        """The batch sizes that have a graph."""
        return sorted(self._graphs)

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
            self._graphs[len(rows)] = static, self._backend.capture(lambda: self._work(static))
        except RuntimeError as error:
            self._graphs.clear()  # one rule for the whole run: either every size may be replayed or none
            # ending a capture that broke raises an error of its own, which hides the one that tells why
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            self.reason = f"capture failed: {str(cause).splitlines()[0]}"
