"""One window: two marks on the timeline, pauses between them, and the reading made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from benchmark.energy.judge.evaluate import Aligned
from benchmark.energy.judge.reading import Reading
from benchmark.energy.timeline.samples import Sample
from benchmark.energy.timeline.span import Span

if TYPE_CHECKING:
    from benchmark.energy.windows.tracer import EnergyTracer


class EnergyError(RuntimeError):
    """With `strict=True`: the window that just closed has no valid energy."""


@dataclass
class Tick:
    """The counter's tick that opened an aligned window on one device."""

    t_ns: int
    joules: float
    half_width_s: float


class Window:
    """Energy from `with` to the end of its block. `reading` is there after the exit, always, also after an exception
    inside."""

    def __init__(
        self, tracer: EnergyTracer, name: str, *, align: bool = False, step_period_s: float | None = None
    ) -> None:
        self.name = name
        self.align = align
        self.step_period_s = step_period_s
        """Seconds of one training step or batch, if known: a load that beats with the sensor is then flagged. May be
        set until the end."""
        self.readings: tuple[Reading, ...] = ()
        """One reading per device; `reading` is their sum."""
        self.start_ns = 0
        self.end_ns = 0
        self.pauses: list[tuple[int, int]] = []
        self.pausing = 0
        self.children: list[Window] = []
        self.parent: Window | None = None
        self.ticks: dict[str, Tick] = {}
        self.aligned: dict[str, Aligned] = {}
        self.error = ""
        self.status = "complete"
        self.opened = False
        self.opened_in_pause = False
        self.opened_wall_us = 0
        self.busy_s = 0.0
        self._open_pauses: dict[int, int] = {}
        self._tracer = tracer
        self._reading: Reading | None = None

    @property
    def reading(self) -> Reading:
        """The window's energy; RuntimeError while it is still open."""
        if self._reading is None:
            raise RuntimeError(f"the window {self.name!r} has no reading before it is closed")
        return self._reading

    @property
    def is_open(self) -> bool:
        """Whether the window is measuring."""
        return self.opened and self.end_ns == 0

    @property
    def closed(self) -> bool:
        """Whether the window has its reading."""
        return self._reading is not None

    def span(self, now_ns: int | None = None) -> Span:
        """The window as marks, up to `now_ns` if it is still open; a pause under way lasts to the end."""
        end = self.end_ns or now_ns or self.start_ns
        unfinished = tuple((start, end) for start in list(self._open_pauses.values()))
        return Span(self.start_ns, end, (*self.pauses, *unfinished))

    def __enter__(self) -> Window:
        if self.opened:
            raise RuntimeError(f"the window {self.name!r} was opened before: make a new one")
        self._tracer._open(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.status = f"the work raised {type(error).__name__}: {error}"
        self._tracer._close(self)
        if self._tracer.strict and error is None and self.reading.grade == "X":
            raise EnergyError(f"window {self.name!r}: {self.reading.reason}")

    def settle(self, reading: Reading, readings: tuple[Reading, ...]) -> None:
        """Called by the tracer once, with the result."""
        self._reading, self.readings = reading, readings

    def synchronize(self) -> None:
        """Wait for the device, as the window's own edges do; an error is kept as the window's, never raised."""
        self._tracer._sync(self)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take what happens inside off this window and every window around it. Synchronised marks; never waits for a
        tick."""
        key = self._tracer._begin_pause(self)
        try:
            yield
        finally:
            self._tracer._end_pause(self, key)

    def begin_pause(self, key: int, now_ns: int) -> None:
        """Called by the tracer: a pause named `key` begins."""
        self.pausing += 1
        self._open_pauses[key] = now_ns

    def end_pause(self, key: int, now_ns: int) -> None:
        """Called by the tracer: the pause named `key` ends."""
        self.pausing -= 1
        start = self._open_pauses.pop(key, None)
        if start is not None:
            self.pauses.append((start, now_ns))

    def peek(self) -> tuple[float, float]:
        """(useful joules so far, watts now), NaN where unknown. Reads no device, never raises: cheap enough for a
        progress line."""
        try:
            return self._tracer._peek(self)
        except Exception:  # a progress line must never stop the work
            return math.nan, math.nan

    def samples(self) -> Iterator[Sample]:
        """The raw readings, once the window is closed."""
        return self.reading.samples()
