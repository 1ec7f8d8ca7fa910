"""One window: what a user opens around work, and the reading made of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from types import TracebackType

from benchmark.energy.judge.reading import Reading
from benchmark.energy.timeline.marks import Marks
from benchmark.energy.timeline.samples import Sample
from benchmark.energy.timeline.span import Span
from benchmark.energy.windows.ledger import PAUSE_KEYS, Ledger, Readings, told

MOST_INTERRUPTS = 20
"""So many signals may come while a window closes; then it stays open until its tracer ends."""


class EnergyError(RuntimeError):
    """With `strict=True`: the window that just closed has no valid energy."""


class Window:
    """Energy from `with` to the end of its block. `reading` is there after the exit, always, also after an exception
    inside. `strict` raises EnergyError at the end where there is no energy."""

    def __init__(self, ledger: Ledger, marks: Marks, strict: bool = False) -> None:
        self.readings: tuple[Reading, ...] = ()
        """One reading per device; `reading` is their sum."""
        self._ledger = ledger
        self._marks = marks
        self._strict = strict
        self._reading: Reading | None = None

    @property
    def name(self) -> str:
        """What the window is called in its reading."""
        return self._marks.name

    @property
    def step_period_s(self) -> float | None:
        """Seconds of one training step or batch, if known: a load that keeps time with the power sensor is then
        flagged. May be set until the end."""
        return self._marks.step_period_s

    @step_period_s.setter
    def step_period_s(self, seconds: float | None) -> None:
        self._marks.step_period_s = seconds

    @property
    def reading(self) -> Reading:
        """The window's energy; RuntimeError while it is still open."""
        if self._reading is None:
            raise RuntimeError(f"the window {self.name!r} has no reading before it is closed")
        return self._reading

    @property
    def is_open(self) -> bool:
        """Whether the window is measuring."""
        return self._marks.is_open

    @property
    def closed(self) -> bool:
        """Whether the window has its reading."""
        return self._reading is not None

    def span(self) -> Span:
        """The window's time on the tracer's clock, with its pauses."""
        return self._marks.span()

    def __enter__(self) -> Window:
        if self._marks.opened:
            raise RuntimeError(f"the window {self.name!r} was opened before: make a new one")
        try:
            self._ledger.enter(self._marks, self._settle)
        except BaseException as error:  # a signal's: the block is never entered, so nothing else would close us
            self._close_surely(f"interrupted while it opened: {told(error)}")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "" if error is None else f"the work raised {told(error)}"
        self._close_surely(status)
        if self._strict and error is None and self.reading.grade == "X":
            raise EnergyError(f"window {self.name!r}: {self.reading.reason}")

    def close(self, status: str = "") -> None:
        """End the window, as the end of its block does; `status` says how it ended. Safe to call twice."""
        if self.closed:
            return
        if status:
            self._marks.status = status
        self._ledger.close(self._marks, self._settle)

    def _close_surely(self, status: str, tries: int = MOST_INTERRUPTS) -> None:
        """Close, again after each signal that came in between, and raise what the first of them raised."""
        try:
            self.close(status)
        except BaseException:
            if not self.closed and tries > 0:
                with contextlib.suppress(BaseException):
                    self._close_surely(status, tries - 1)
            raise

    def _settle(self, readings: Readings) -> None:
        if self._reading is None:
            self.readings = readings.each
            self._reading = readings.whole

    def synchronize(self) -> None:
        """Wait for the device, as the window's own edges do; an error is kept as the window's, never raised."""
        self._ledger.synchronize(self._marks)

    def paused(self) -> Pause:
        """Take what happens in the block of this off the window and every window around it. Its edges are synchronised,
        and never wait for a tick."""
        return Pause(self._ledger, self._marks)

    def peek(self) -> tuple[float, float]:
        """(useful joules so far, watts now), NaN where unknown. Reads no device, never raises: cheap enough for a
        progress line."""
        if self._reading is not None:
            return self._reading.joules, self._reading.mean_power_w
        try:
            return self._ledger.peek(self._marks)
        except Exception:  # a progress line must never stop the work
            return math.nan, math.nan

    def so_far(self) -> Reading:
        """The reading as it would be if the window ended now; of a closed window, its own. Reads no device."""
        return self._ledger.so_far(self._marks) if self._reading is None else self._reading

    def samples(self) -> Iterator[Sample]:
        """The raw readings, once the window is closed."""
        return self.reading.samples()


class Pause:
    """A stretch of a window that is off its meter; to use with `with`."""

    def __init__(self, ledger: Ledger, marks: Marks) -> None:
        self._ledger = ledger
        self._marks = marks
        self._key = next(PAUSE_KEYS)

    def __enter__(self) -> None:
        try:
            self._ledger.begin_pause(self._marks, self._key)
        except BaseException:  # a signal's: the block is never entered, so nothing else would end the pause
            self._ledger.end_pause(self._marks, self._key)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.end_pause(self._marks, self._key)
