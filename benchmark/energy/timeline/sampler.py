"""The one background sampler of a process: a fast lane for energy and power, a slow lane for the rest."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

from benchmark.energy.timeline.clock import Clock, SystemClock, Ticker

PERIOD_S = 0.05
"""Fast lane. Recent data-centre GPUs publish every 100 ms: at 50 ms every tick of the counter lies between two reads,
at most 50 ms apart."""
SLOW_PERIOD_S = 1.0


class Recorder(Protocol):
    """What the sampler reads."""

    def sample(self) -> None:
        """One reading; never raises."""


class SlowRecorder(Protocol):
    """What the sampler reads once a second."""

    def sample_slow(self) -> None:
        """One slow reading; never raises."""


class Sampler:
    """Reads what is attached, while anything is attached. Attach and detach from any thread."""

    def __init__(self, clock: Clock) -> None:
        self.busy_s = 0.0
        self.beats = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._attached: dict[int, tuple[tuple[Recorder, ...], tuple[SlowRecorder, ...], float]] = {}
        self._ticker: Ticker | None = None
        self._period_s = 0.0
        self._next_slow_ns = 0

    @property
    def running(self) -> bool:
        """Whether the sampler is running."""
        return self._ticker is not None

    def attach(self, key: int, fast: tuple[Recorder, ...], slow: tuple[SlowRecorder, ...], period_s: float) -> None:
        """Read these from now on, at least every `period_s`. Raises RuntimeError where no thread can be started."""
        with self._lock:
            self._attached[key] = (fast, slow, period_s)
            self._next_slow_ns = 0
            try:
                self._restart()
            except BaseException:  # no thread can be started now; the next one to attach tries again
                del self._attached[key]
                raise

    def detach(self, key: int) -> None:
        """Read these no longer; the last one out stops the sampler."""
        with self._lock:
            self._attached.pop(key, None)
            self._restart()

    def _restart(self) -> None:
        period_s = min((entry[2] for entry in self._attached.values()), default=0.0)
        if period_s == self._period_s:
            return
        if self._ticker is not None:
            self._ticker.stop()
        self._ticker, self._period_s = None, 0.0
        if period_s > 0:
            self._ticker = self._clock.ticker(period_s, self.beat)
            self._period_s = period_s

    def beat(self) -> None:
        """One round; called by the ticker."""
        start_s = time.thread_time()
        entries = list(self._attached.values())
        for fast, _, _ in entries:
            for recorder in fast:
                recorder.sample()
        now_ns = self._clock.now_ns()
        if now_ns >= self._next_slow_ns:
            self._next_slow_ns = now_ns + int(SLOW_PERIOD_S * 1e9)
            for _, slow, _ in entries:
                for slow_recorder in slow:
                    slow_recorder.sample_slow()
        self.beats += 1
        self.busy_s += time.thread_time() - start_s


_SHARED: tuple[int, Sampler] | None = None


def sampler_for(clock: Clock) -> Sampler:
    """The process's sampler; a clock of the caller's own gets a sampler of its own."""
    global _SHARED
    if not isinstance(clock, SystemClock):
        return Sampler(clock)
    if _SHARED is None or _SHARED[0] != os.getpid():
        _SHARED = (os.getpid(), Sampler(clock))
    return _SHARED[1]
