"""Opens and closes windows: keeps the sampler running while one is open, and turns marks into readings.

Nothing here raises for a meter's sake: what goes wrong becomes the window's `error`, and its reading has grade X.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmark.energy.judge.assembly import MIG, host_reading, invalid_reading, readings_of
from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import Device
from benchmark.energy.meters.meter import Meter
from benchmark.energy.timeline.clock import Clock
from benchmark.energy.timeline.hands import hands_for
from benchmark.energy.timeline.host_recorder import HostRecorder
from benchmark.energy.timeline.marks import Child, Marks
from benchmark.energy.timeline.sampler import sampler_for
from benchmark.energy.windows.session import Options, Session, new_session

PAUSE_KEYS = itertools.count(1)
"""A key for each pause of this process."""


class Readings(NamedTuple):
    """What a window gives back: the sum over its devices, and one reading for each."""

    whole: Reading
    each: tuple[Reading, ...]


def told(error: BaseException) -> str:
    """An exception in words, whatever its own __str__ does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__} (it cannot be printed)"


@dataclass(frozen=True)
class Settings:
    """What a tracer was made with."""

    devices: tuple[Device, ...]
    clock: Clock
    options: Options
    synchronize: Callable[[], None] | None = None
    cpu_tdp_w: float | None = None
    meters: tuple[Meter, ...] = ()


class _Entry(NamedTuple):
    """An open window's session (None where it could not be had), and who is given its readings."""

    session: Session | None
    settle: Callable[[Readings], None]


@dataclass
class Ledger:
    """The open windows of one tracer and the session that records for them."""

    settings: Settings
    _open: dict[Marks, _Entry] = field(default_factory=dict)
    _session: Session | None = None

    def __post_init__(self) -> None:
        clock = self.settings.clock
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._stacks = threading.local()
        self._sampler = sampler_for(clock)
        self._hands = hands_for(clock)

    @property
    def disabled(self) -> str:
        """Why this process does not trace; empty if it does."""
        if self.forked:
            return "a forked child does not trace: its parent does"
        rank = os.environ.get("LOCAL_RANK", "0")
        if rank != "0" and not self.settings.options.every_rank:
            return f"local rank {rank} does not trace: rank 0 does"
        return ""

    @property
    def forked(self) -> bool:
        """Whether this process is a forked child of the one that made the tracer."""
        return os.getpid() != self._pid

    def close_all(self, status: str) -> None:
        """Close every window that is open, the newest first."""
        for marks, entry in reversed(list(self._open.items())):
            marks.status = status
            self.close(marks, entry.settle)

    # --- a window's edges -------------------------------------------------------------------------------------------

    def enter(self, marks: Marks, settle: Callable[[Readings], None]) -> None:
        """Open a window here and now; `settle` is given its readings by `close`. What a signal raises meanwhile is
        raised once it is open."""
        if self.disabled:
            return
        stack = self._stack()
        self.synchronize(marks)
        self._hands.shielded(lambda: self._enter(marks, settle, stack))

    def _enter(self, marks: Marks, settle: Callable[[Readings], None], stack: list[Marks]) -> None:
        clock = self.settings.clock
        stack[:] = [other for other in stack if other.is_open]  # some may have been closed by another thread
        marks.parent = stack[-1] if stack else None
        marks.opened_in_pause = any(other.open_pauses for other in stack)
        marks.opened_wall_us = clock.wall_us()
        session: Session | None = None
        try:
            session = self._join()
            session.read()
            marks.busy_s = self._sampler.busy_s
            marks.start_ns = clock.now_ns()
            if marks.align:
                session.align_start(marks)
            session.edge(marks.start_ns)
        except Exception as error:
            marks.error = marks.error or f"tracer fault: {told(error)}"
            marks.start_ns = clock.now_ns()
        marks.opened = True
        self._open[marks] = _Entry(session, settle)
        stack.append(marks)

    def close(self, marks: Marks, settle: Callable[[Readings], None]) -> None:
        """Close a window here and now, and hand its readings to `settle`. What a signal raises meanwhile is raised
        after that."""
        why = self.disabled or ("" if marks.opened else "the window was never opened")
        if why:
            settle(self._invalid(marks, why))
            return
        interrupt: BaseException | None = None
        try:
            self.synchronize(marks)
        except BaseException as error:  # a signal came while the device was waited for: close first
            interrupt = error
        end_ns = self.settings.clock.now_ns()
        self._hands.shielded(lambda: settle(self._close(marks, end_ns)))
        if interrupt is not None:
            raise interrupt

    def _close(self, marks: Marks, end_ns: int) -> Readings:
        session = self._session_of(marks)
        marks.end_ns = end_ns
        try:
            if session is not None:
                session.edge(end_ns)
                session.read()
                if marks.align:
                    session.align_end(marks)
                session.fetch()
        except Exception as error:
            marks.error = marks.error or f"tracer fault: {told(error)}"
        marks.busy_s = self._sampler.busy_s - marks.busy_s
        readings = self._judge(marks, session)
        with contextlib.suppress(Exception):  # no thread for a slower sampler, say: not the caller's problem
            self._adopt(marks, readings.whole.joules)
            self._forget(marks, session)
        return readings

    def _judge(self, marks: Marks, session: Session | None) -> Readings:
        devices = self.settings.devices
        if session is None or marks.error:
            return self._invalid(marks, marks.error or "no session")
        if len(session.gpus) < sum(device.kind == "cuda" for device in devices):
            return self._invalid(marks, MIG)
        try:
            with session.whole():
                if session.gpus:
                    return Readings(*readings_of(marks, session.gpus, session.host, self.sync_method))
                return Readings(*host_reading(marks, devices[0], session.host, self.sync_method))
        except Exception as error:
            return self._invalid(marks, f"tracer fault: {told(error)}")

    def _invalid(self, marks: Marks, why: str) -> Readings:
        reading = invalid_reading(marks, self.settings.devices, why)
        return Readings(reading, (reading,) * len(self.settings.devices))

    def _adopt(self, marks: Marks, joules: float) -> None:
        """Hand a closed window to the nearest window still open around it."""
        parent = marks.parent
        while parent is not None and not parent.is_open:
            parent = parent.parent
        if parent is not None and not marks.opened_in_pause:
            parent.adopt(Child(marks.start_ns, marks.end_ns, marks.name, joules))

    # --- what happens inside a window -------------------------------------------------------------------------------

    def begin_pause(self, marks: Marks, key: int) -> None:
        """Mark a pause of this key on the window and on those around it; nothing happens where nothing is traced."""
        if self.disabled or not marks.is_open:
            return
        self.synchronize(marks)
        self._hands.shielded(lambda: self._begin_pause(marks, key))

    def _begin_pause(self, marks: Marks, key: int) -> None:
        now_ns = self.settings.clock.now_ns()
        for around in _outwards(marks):
            around.open_pauses[key] = now_ns
        self._read(marks, now_ns)  # after the mark: what the reading costs is part of the pause

    def end_pause(self, marks: Marks, key: int) -> None:
        """The pause of this key ends; nothing happens where none began."""
        if self.disabled or key not in marks.open_pauses:
            return
        self.synchronize(marks)
        self._hands.shielded(lambda: self._end_pause(marks, key))

    def _end_pause(self, marks: Marks, key: int) -> None:
        self._read(marks, self.settings.clock.now_ns())
        now_ns = self.settings.clock.now_ns()
        for around in _outwards(marks):
            around.end_pause(key, now_ns)

    def _read(self, marks: Marks, edge_ns: int) -> None:
        session = self._session_of(marks)
        try:
            if session is not None:
                session.edge(edge_ns)
                session.read()
        except Exception as error:
            marks.error = marks.error or f"tracer fault: {told(error)}"

    def peek(self, marks: Marks) -> tuple[float, float]:
        """(useful joules so far, watts now) of an open window."""
        session = self._session_of(marks)
        if session is None:
            raise RuntimeError(f"the window {marks.name!r} is not open")
        return session.peek(marks)

    def so_far(self, marks: Marks) -> Reading:
        """The reading of an open window as it would be if it ended now."""
        if self.disabled or not marks.is_open:
            return self._invalid(marks, self.disabled or "the window is not open").whole
        now_ns = self.settings.clock.now_ns()
        pauses = list(marks.span(now_ns).pauses)
        cut = replace(marks, end_ns=now_ns, pauses=pauses, open_pauses={}, children=list(marks.children))
        return self._judge(cut, self._session_of(marks)).whole

    @property
    def sync_method(self) -> str:
        """How the device is waited for: 'caller', 'torch.cuda', 'none needed' (CPU) or 'none'."""
        if self.settings.synchronize is not None:
            return "caller"
        if self.settings.devices[0].kind == "cpu":
            return "none needed"
        return "torch.cuda" if _torch_cuda() is not None else "none"

    def synchronize(self, marks: Marks) -> None:
        """Wait for the device; an error is kept as the window's, never raised."""
        devices = self.settings.devices
        try:
            if self.settings.synchronize is not None:
                self.settings.synchronize()
            elif devices[0].kind == "cuda" and (cuda := _torch_cuda()) is not None:
                for device in devices:
                    cuda.synchronize(device.torch_name)
        except Exception as error:
            marks.error = f"synchronize failed: {told(error)}"

    # --- the session ------------------------------------------------------------------------------------------------

    def _session_of(self, marks: Marks) -> Session | None:
        entry = self._open.get(marks)
        return None if entry is None else entry.session

    def _stack(self) -> list[Marks]:
        stack: list[Marks] = self._stacks.__dict__.setdefault("windows", [])
        return stack

    def _join(self) -> Session:
        """The running session, or a new one with its sampler."""
        with self._lock:
            if self._session is None:
                s = self.settings
                host = HostRecorder(s.clock, s.cpu_tdp_w, s.options.powercap, s.meters)
                session = new_session(s.devices, s.clock, self._hands, host, s.options.probed)
                fast = tuple(recorder for _, recorder in session.gpus)
                self._sampler.attach(id(self), fast, (*fast, host), s.options.period_s)
                self._session = session
            self._session.users += 1
            return self._session

    def _forget(self, marks: Marks, session: Session | None) -> None:
        """Take the window off the books; the last one out stops the sampler."""
        with self._lock:
            self._open.pop(marks, None)
            if session is None:
                return
            session.users -= 1
            if session.users == 0:
                self._session = None
                self._sampler.detach(id(self))


def _torch_cuda() -> Any | None:
    """torch.cuda if torch is loaded and can use a GPU; a torch built for the CPU has queued nothing there."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_available() else None


def _outwards(marks: Marks) -> Iterator[Marks]:
    around: Marks | None = marks
    while around is not None:
        yield around
        around = around.parent
