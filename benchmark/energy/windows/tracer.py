"""The energy tracer: the front door of the library. It chooses the devices and makes windows."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import Device, DeviceError, find_device
from benchmark.energy.meters.estimate import why_no_tdp
from benchmark.energy.meters.meter import Meter, why_no_meter
from benchmark.energy.timeline.clock import Clock, SystemClock
from benchmark.energy.timeline.marks import Marks
from benchmark.energy.windows.ledger import Ledger, Settings
from benchmark.energy.windows.session import Options
from benchmark.energy.windows.window import Window

P = ParamSpec("P")
R = TypeVar("R")


class EnergyTracer:
    """Measures windows on one or several devices.

    `synchronize` waits for the device (default on a GPU: torch.cuda.synchronize if a torch with CUDA is loaded).
    `cpu_tdp_w` is the rated power of the logical cores this machine shows, used only where no meter exists. `meters`
    are meters of your own (see Meter): their sum takes the place of the host's, and is the headline on the device
    'cpu'. Errors of the tracer never reach the work: they become a reading of grade X with a reason; `strict=True`
    raises EnergyError after the window instead. A forked child traces nothing. Raises DeviceError or ValueError for
    devices, watts or meters that cannot be meant.
    """

    def __init__(  # noqa: PLR0913 - the front door of a library: every argument is optional and named
        self,
        device: str | Device | Sequence[str | Device] = "auto",
        *,
        meters: Sequence[Meter] = (),
        synchronize: Callable[[], None] | None = None,
        cpu_tdp_w: float | None = None,
        strict: bool = False,
        clock: Clock | None = None,
        options: Options | None = None,
    ) -> None:
        self.options = options or Options()
        self.devices = _devices(device, self.options)
        why = next(filter(None, (why_no_tdp(cpu_tdp_w), *map(why_no_meter, meters))), "")
        if why:
            raise ValueError(why)
        self.strict = strict
        self.clock: Clock = clock or SystemClock()
        self._ledger = Ledger(
            Settings(self.devices, self.clock, self.options, synchronize, cpu_tdp_w, tuple(meters)),
        )
        _LIVE.add(self)

    @property
    def device(self) -> Device:
        """The first device."""
        return self.devices[0]

    @property
    def disabled(self) -> str:
        """Why this process does not trace; empty if it does."""
        return self._ledger.disabled

    @property
    def sync_method(self) -> str:
        """How the device is waited for: 'caller', 'torch.cuda', 'none needed' (CPU) or 'none'."""
        return self._ledger.sync_method

    def window(self, name: str, *, align: bool = False, step_period_s: float | None = None) -> Window:
        """A window to use with `with`. `align=True` waits for counter ticks at both edges (up to 0.3 s): for short
        windows."""
        return Window(self._ledger, Marks(name, align, step_period_s), self.strict)

    def trace(self, mode: str) -> Callable[[Callable[P, R]], Callable[P, tuple[R, Reading]]]:
        """A decorator: the function then returns (result, reading), like the paper's tracer (appendix B).

        Of an async function the window lasts until it has been awaited. A generator function is refused with TypeError:
        its work happens in the loop that consumes it, so the window belongs there.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, tuple[R, Reading]]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    f"{function.__qualname__} is a generator: calling it does no work; open a window around the loop "
                    f"that consumes it: with tracer.window({mode!r}): ..."
                )
            if inspect.iscoroutinefunction(function):
                return self._trace_async(mode, function)

            @functools.wraps(function)
            def traced(*args: P.args, **kwargs: P.kwargs) -> tuple[R, Reading]:
                with self.window(mode) as window:
                    result = function(*args, **kwargs)
                return result, window.reading

            return traced

        return decorate

    def _trace_async(self, mode: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def traced(*args: Any, **kwargs: Any) -> tuple[Any, Reading]:
            with self.window(mode) as window:
                result = await function(*args, **kwargs)
            return result, window.reading

        return traced

    def close(self) -> None:
        """Close what is still open (its readings say so) and stop sampling. Safe to call twice."""
        if not self._ledger.forked:
            self._ledger.close_all("closed by the tracer's end before its own")

    def __enter__(self) -> EnergyTracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _devices(wish: str | Device | Sequence[str | Device], options: Options) -> tuple[Device, ...]:
    """The devices that were wished for. Raises DeviceError where they cannot be measured together."""
    wishes = [wish] if isinstance(wish, (str, Device)) else list(wish)
    found = tuple(w if isinstance(w, Device) else find_device(w, powercap=options.powercap) for w in wishes)
    if len({d.kind for d in found}) != 1 or len({d.uuid for d in found}) != len(found):
        raise DeviceError("a tracer measures one CPU, or one or several different GPUs")
    if found[0].kind == "cpu" and len(found) > 1:
        raise DeviceError("there is one CPU device")
    return found


_LIVE: weakref.WeakSet[EnergyTracer] = weakref.WeakSet()


def _at_exit() -> None:
    for tracer in list(_LIVE):
        tracer.close()


atexit.register(_at_exit)


def _in_child() -> None:
    """A forked child holds copies of tracers whose thread is not there: it must not close or lock them."""
    _LIVE.clear()


os.register_at_fork(after_in_child=_in_child)
