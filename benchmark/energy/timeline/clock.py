"""Time as the tracer sees it: one monotonic clock for every stamp, wall time only as a label."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

LEAVE_S = 0.5
"""A call that takes longer hangs in a driver: its thread ends when it comes back."""


class Ticker(Protocol):
    """Something that keeps calling until it is stopped."""

    def stop(self) -> None:
        """End the calls; none is under way once this returns (unless the caller is the ticker itself)."""


class Clock(Protocol):
    """A source of time that can also call back on a schedule, so that a virtual clock needs no threads."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds; only differences mean anything."""

    def wall_us(self) -> int:
        """Microseconds since 1970, for labels and for the driver's own time stamps."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""

    def ticker(self, period_s: float, call: Callable[[], None]) -> Ticker:
        """Call `call` at once and then every `period_s` on an absolute schedule; missed beats are skipped, not caught
        up."""


def utc_label(wall_us: int) -> str:
    """An ISO 8601 label in UTC for microseconds since 1970."""
    return datetime.fromtimestamp(wall_us / 1e6, UTC).isoformat(timespec="milliseconds")


class ThreadTicker:
    """A daemon thread on an absolute schedule: the period does not grow by what a call costs."""

    def __init__(self, period_s: float, call: Callable[[], None]) -> None:
        self._period_s = period_s
        self._call = call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            self._call()
            due += self._period_s
            late = time.monotonic() - due
            if late > 0:
                due += self._period_s * (1 + late // self._period_s)
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """End the calls and wait for the one under way, but not for one that hangs."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=LEAVE_S)


class SystemClock:
    """The machine's monotonic clock; its ticker is a thread."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def ticker(self, period_s: float, call: Callable[[], None]) -> Ticker:
        return ThreadTicker(period_s, call)
