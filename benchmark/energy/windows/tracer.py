"""The energy tracer: opens windows, keeps the sampler running while one is open, and turns marks into readings."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from benchmark.energy.judge.assembly import MIG, host_reading, invalid_reading, readings_of
from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import Device, DeviceError, find_device
from benchmark.energy.timeline.clock import Clock, SystemClock
from benchmark.energy.timeline.sampler import sampler_for
from benchmark.energy.windows.session import Options, Session, new_session
from benchmark.energy.windows.window import Window

P = ParamSpec("P")
R = TypeVar("R")
_PAUSE_KEYS = itertools.count(1)


class EnergyTracer:
    """Measures windows on one or several devices.

    `synchronize` waits for the device (default on a GPU: torch.cuda.synchronize if a torch with CUDA is loaded).
    `cpu_tdp_w` is the rated power of the logical cores this machine shows, used only where no meter exists. Errors of
    the tracer never reach the work: they become a reading of grade X with a reason; `strict=True` raises EnergyError
    after the window instead. A forked child traces nothing.
    """

    def __init__(  # noqa: PLR0913 - the front door of a library: every argument is optional and named
        self,
        device: str | Device | Sequence[str | Device] = "auto",
        *,
        synchronize: Callable[[], None] | None = None,
        cpu_tdp_w: float | None = None,
        strict: bool = False,
        clock: Clock | None = None,
        options: Options | None = None,
    ) -> None:
        wishes = [device] if isinstance(device, (str, Device)) else list(device)
        self.options = options or Options()
        self.devices = tuple(
            w if isinstance(w, Device) else find_device(w, powercap=self.options.powercap) for w in wishes
        )
        if len({d.kind for d in self.devices}) != 1 or len({d.uuid for d in self.devices}) != len(self.devices):
            raise DeviceError("a tracer measures one CPU, or one or several different GPUs")
        if self.devices[0].kind == "cpu" and len(self.devices) > 1:
            raise DeviceError("there is one CPU device")
        self.strict = strict
        self.clock: Clock = clock or SystemClock()
        if cpu_tdp_w is not None and not cpu_tdp_w > 0:
            raise ValueError(f"cpu_tdp_w must be positive watts, not {cpu_tdp_w}")
        self._tdp_w = cpu_tdp_w
        self._synchronize = synchronize
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._sampler = sampler_for(self.clock)
        self._stacks = threading.local()
        self._open_windows: list[Window] = []
        self._sessions: dict[Window, Session] = {}
        _LIVE.add(self)

    # -- the public side

    @property
    def device(self) -> Device:
        """The first device."""
        return self.devices[0]

    @property
    def disabled(self) -> str:
        """Why this process does not trace; empty if it does."""
        if os.getpid() != self._pid:
            return "a forked child does not trace: its parent does"
        rank = os.environ.get("LOCAL_RANK", "0")
        if rank != "0" and not self.options.every_rank:
            return f"local rank {rank} does not trace: rank 0 does"
        return ""

    def window(self, name: str, *, align: bool = False, step_period_s: float | None = None) -> Window:
        """A window to use with `with`. `align=True` waits for counter ticks at both edges (up to 0.3 s): for short
        windows."""
        return Window(self, name, align=align, step_period_s=step_period_s)

    def trace(self, mode: str) -> Callable[[Callable[P, R]], Callable[P, tuple[R, Reading]]]:
        """A decorator: the function then returns (result, reading), like the paper's tracer (appendix B)."""

        def decorate(function: Callable[P, R]) -> Callable[P, tuple[R, Reading]]:
            @functools.wraps(function)
            def traced(*args: P.args, **kwargs: P.kwargs) -> tuple[R, Reading]:
                with self.window(mode) as window:
                    result = function(*args, **kwargs)
                return result, window.reading

            return traced

        return decorate

    def close(self) -> None:
        """Close what is still open (its readings say so) and stop sampling. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        for window in reversed(list(self._open_windows)):
            window.status = "closed by the tracer's end before its own"
            self._close(window)

    def __enter__(self) -> EnergyTracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what windows call

    def _open(self, window: Window) -> None:
        if self.disabled:
            return
        stack = self._stack()
        stack[:] = [w for w in stack if w.is_open]  # some may have been closed by another thread
        window.parent = stack[-1] if stack else None
        window.opened_in_pause = any(w.pausing for w in stack)
        window.opened_wall_us = self.clock.wall_us()
        try:
            session = self._join(window)
            self._sync(window)
            session.read()
            window.start_ns = self.clock.now_ns()
            if window.align:
                session.align_start(window)
        except Exception as error:
            window.error = f"tracer fault: {type(error).__name__}: {error}"
            window.start_ns = self.clock.now_ns()
        window.opened = True
        stack.append(window)
        self._open_windows.append(window)

    def _close(self, window: Window) -> None:
        if window.closed:
            return
        why = self.disabled
        if why or not window.opened:
            reading = invalid_reading(window, self.devices, why or "the window was never opened")
            window.settle(reading, (reading,) * len(self.devices))
            return
        session = self._sessions.get(window)
        try:
            if session is None:
                raise RuntimeError(window.error or "no session")
            self._sync(window)
            window.end_ns = self.clock.now_ns()
            session.read()
            if window.align:
                session.align_end(window)
        except Exception as error:
            window.error = window.error or f"tracer fault: {type(error).__name__}: {error}"
            window.end_ns = window.end_ns or self.clock.now_ns()
        finally:
            self._forget(window)
        self._settle(window, session)

    def _settle(self, window: Window, session: Session | None) -> None:
        window.busy_s = self._sampler.busy_s - window.busy_s
        try:
            if session is None or window.error:
                raise RuntimeError(window.error or "no session")
            if len(session.gpus) < sum(device.kind == "cuda" for device in self.devices):
                raise RuntimeError(MIG)
            reading, readings = (
                readings_of(window, session.gpus, session.host, self.sync_method)
                if session.gpus
                else host_reading(window, self.device, session.host, self.sync_method)
            )
        except Exception as error:
            why = window.error or (MIG if str(error) == MIG else f"tracer fault: {type(error).__name__}: {error}")
            reading = invalid_reading(window, self.devices, why)
            readings = (reading,) * len(self.devices)
        window.settle(reading, readings)
        self._adopt(window)

    def _adopt(self, window: Window) -> None:
        """Hand the closed window to the nearest window still open around it, unless the two would count anything
        twice."""
        parent = window.parent
        while parent is not None and not parent.is_open:
            parent = parent.parent
        if parent is None or window.opened_in_pause:
            return
        if all(window.start_ns >= other.end_ns or window.end_ns <= other.start_ns for other in parent.children):
            parent.children.append(window)

    def _begin_pause(self, window: Window) -> int:
        """Mark the pause on the window and on those around it; returns its key, 0 if nothing is traced."""
        if self.disabled or not window.is_open:
            return 0
        key = next(_PAUSE_KEYS)
        self._sync(window)
        now_ns = self.clock.now_ns()
        for around in _outwards(window):
            around.begin_pause(key, now_ns)
        self._sessions[window].read()  # after the mark: what the reading costs is part of the pause
        return key

    def _end_pause(self, window: Window, key: int) -> None:
        if key == 0 or self.disabled:
            return
        self._sync(window)
        session = self._sessions.get(window)
        if session is not None:
            session.read()
        now_ns = self.clock.now_ns()
        for around in _outwards(window):
            around.end_pause(key, now_ns)

    def _peek(self, window: Window) -> tuple[float, float]:
        if window.closed:
            return window.reading.joules, window.reading.mean_power_w
        return self._sessions[window].peek(window, self.clock.now_ns())

    # -- inside

    @property
    def sync_method(self) -> str:
        """How the device is waited for: 'caller', 'torch.cuda', 'none needed' (CPU) or 'none'."""
        if self._synchronize is not None:
            return "caller"
        if self.device.kind == "cpu":
            return "none needed"
        return "torch.cuda" if _torch_cuda() is not None else "none"

    def _sync(self, window: Window) -> None:
        try:
            if self._synchronize is not None:
                self._synchronize()
            elif self.device.kind == "cuda" and (cuda := _torch_cuda()) is not None:
                for device in self.devices:
                    cuda.synchronize(device.torch_name)
        except Exception as error:
            window.error = f"synchronize failed: {type(error).__name__}: {error}"

    def _stack(self) -> list[Window]:
        stack: list[Window] = self._stacks.__dict__.setdefault("windows", [])
        return stack

    def _join(self, window: Window) -> Session:
        """The running session, or a new one with its sampler."""
        with self._lock:
            if self._session is None:
                self._session = new_session(self.devices, self.clock, self._tdp_w, self.options)
                fast = tuple(recorder for _, recorder in self._session.gpus)
                self._sampler.attach(id(self), fast, (*fast, self._session.host), self.options.period_s)
            self._session.users += 1
            self._sessions[window] = self._session
            window.busy_s = self._sampler.busy_s
            return self._session

    def _forget(self, window: Window) -> None:
        """Take the window off the books; the last one out stops the sampler."""
        with self._lock:
            for books in (self._open_windows, self._stack()):
                if window in books:
                    books.remove(window)
            session = self._sessions.pop(window, None)
            if session is None:
                return
            session.users -= 1
            if session.users == 0:
                self._sampler.detach(id(self))
                self._session = None


def _torch_cuda() -> Any | None:
    """torch.cuda if torch is loaded and can use a GPU; a torch built for the CPU has queued nothing there."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_available() else None


def _outwards(window: Window) -> Iterator[Window]:
    around: Window | None = window
    while around is not None:
        yield around
        around = around.parent


_LIVE: weakref.WeakSet[EnergyTracer] = weakref.WeakSet()


def _at_exit() -> None:
    for tracer in list(_LIVE):
        tracer.close()


atexit.register(_at_exit)


def _in_child() -> None:
    """A forked child holds copies of tracers whose thread is not there: it must not close or lock them."""
    _LIVE.clear()


os.register_at_fork(after_in_child=_in_child)
