"""What is recorded while windows are open: the recorders of devices and host, and what windows ask of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.energy.meters.device import Device
from benchmark.energy.meters.rapl import POWERCAP
from benchmark.energy.timeline.clock import Clock
from benchmark.energy.timeline.gpu_recorder import STILL_LOST, TICK_TIMEOUT_S, GpuRecorder
from benchmark.energy.timeline.hands import Hands, Ticket
from benchmark.energy.timeline.host_recorder import HostRecorder
from benchmark.energy.timeline.marks import Aligned, Marks, Tick
from benchmark.energy.timeline.sampler import PERIOD_S

NO_TICK = f"no tick of the energy counter came within {TICK_TIMEOUT_S} s (stale)"
RESET = "the energy counter was reset in the window or right after it (driver reload or GPU reset)"
GAP_SHARE = 0.02
"""How far the power right after the work may differ from that one tick later: standard uncertainty of the gap
correction."""
EDGE_S = 1.0
"""A reading at an edge of a window takes a millisecond. The measured code waits no longer than this for a driver that
hangs."""


@dataclass(frozen=True)
class Options:
    """What rarely changes: the sampler's period, where RAPL lies, whether ranks other than 0 trace.

    `probed` holds what `probe` found, by the device's UUID: its counter tick, sensor periods and idle powers are then
    used and stand in the record.
    """

    period_s: float = PERIOD_S
    probed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    powercap: Path = POWERCAP
    every_rank: bool = False


class Session:
    """The recorders of one stretch of open windows: made with the first window, kept by their windows, forgotten with
    the last."""

    def __init__(
        self, gpus: Sequence[tuple[Device, GpuRecorder]], host: HostRecorder, clock: Clock, hands: Hands
    ) -> None:
        self.gpus = tuple(gpus)
        self.host = host
        self.users = 0
        self._clock = clock
        self._hands = hands
        self._late: Ticket | None = None

    def read(self) -> None:
        """Read every meter once, now; a driver that takes longer than EDGE_S is left behind, and noted."""
        self._driver(self._read)

    def edge(self, t_ns: int) -> None:
        """A window or a pause begins or ends here."""
        for _, recorder in self.gpus:
            recorder.edge(t_ns)

    def fetch(self) -> None:
        """Fetch what a driver's own buffer has gathered, where that is the best source."""
        self._driver(self._fetch)

    def _fetch(self) -> None:
        for _, recorder in self.gpus:
            recorder.fetch_ring()

    def _read(self) -> None:
        for _, recorder in self.gpus:
            recorder.sample(edge=True)
        self.host.sample()

    def _driver(self, call: Callable[[], None], timeout_s: float = EDGE_S) -> bool:
        """Whether a call into the drivers came back in time. While one hangs, no other is sent after it."""
        if self._late is None or self._late.finished:
            ticket = self._hands.bounded(call, timeout_s)
            self._late = None if ticket.finished else ticket
        if self._late is None:
            return True
        for _, recorder in self.gpus:
            recorder.note(f"the driver took longer than {timeout_s:g} s at an edge of a window")
        return False

    def align_start(self, marks: Marks) -> None:
        """Begin at a tick of the counter. Ticks of several GPUs do not fall together, so only a single GPU is aligned;
        one whose counter gives nothing is not aligned, and the next best source counts."""
        if len(self.gpus) != 1 or not self.gpus[0][1].counter.reads:
            return
        device, recorder = self.gpus[0]
        tick = self._tick(recorder)
        if tick is None:
            if recorder.lost or recorder.garbage:
                marks.error = _why_no_tick(recorder)
            return
        marks.ticks[device.uuid] = Tick(*tick)
        marks.start_ns = tick[0]

    def align_end(self, marks: Marks) -> None:
        """End at a tick: two more ticks tell the power after the work, and so what to take off for the wait until the
        first."""
        for device, recorder in self.gpus:
            start = marks.ticks.get(device.uuid)
            if start is None:
                continue
            first = self._tick(recorder)
            second = self._tick(recorder) if first is not None else None
            if first is None or second is None:
                marks.error = marks.error or _why_no_tick(recorder)
                continue
            if any(after_ns > start.t_ns for _, after_ns in recorder.counter.resets):
                marks.error = marks.error or RESET
                continue
            after_w = (second[1] - first[1]) / ((second[0] - first[0]) / 1e9)
            gap_j = -after_w * (first[0] - marks.end_ns) / 1e9
            stamp_sd_s = math.hypot(start.half_width_s, first[2]) / math.sqrt(3)
            marks.aligned[device.uuid] = Aligned(
                start.joules, first[1] + gap_j, gap_j, stamp_sd_s, GAP_SHARE * abs(gap_j), after_w
            )

    def _tick(self, recorder: GpuRecorder) -> tuple[int, float, float] | None:
        """The counter's next tick, waited for no longer than a driver that hangs is."""
        found: list[tuple[int, float, float] | None] = []

        def wait() -> None:
            found.append(recorder.wait_tick())

        self._driver(wait, TICK_TIMEOUT_S + EDGE_S)
        return found[0] if found else None

    def peek(self, marks: Marks) -> tuple[float, float]:
        """(useful joules so far, watts now) from what has been recorded."""
        span = marks.span(self._clock.now_ns())
        with self.whole():
            if not self.gpus:
                curve = self.host.package
                joules = span.total_energy(curve.energy_at) - span.paused_energy(curve.energy_at)
                return joules, _recent_watts(curve.t, curve.j)
            joules, watts = 0.0, 0.0
            for _, recorder in self.gpus:
                energy_at = recorder.counter.energy_at if len(recorder.counter.t) > 1 else recorder.power.energy_at
                joules += span.total_energy(energy_at) - span.paused_energy(energy_at)
                counter = recorder.counter
                watts += recorder.power.w[-1] if recorder.power.w else _recent_watts(counter.t, counter.j)
            return joules, watts

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Nothing is added to any curve meanwhile. No driver is waited for: recorders hold no lock during a call."""
        with contextlib.ExitStack() as stack:
            for _, recorder in self.gpus:
                stack.enter_context(recorder.lock)
            stack.enter_context(self.host.lock)
            yield


def _why_no_tick(recorder: GpuRecorder) -> str:
    if recorder.lost and recorder.lost[-1][1] == STILL_LOST:
        return "the GPU was lost while a tick of its energy counter was waited for"
    last = recorder.counter.last_read
    if recorder.garbage and (last is None or recorder.garbage[-1][0] > last[0]):
        return "the energy counter read all ones while its tick was waited for"
    return NO_TICK


def new_session(
    devices: Sequence[Device], clock: Clock, hands: Hands, host: HostRecorder, probed: Mapping[str, Mapping[str, Any]]
) -> Session:
    """Fresh recorders for the devices that NVML can reach."""
    gpus = [
        (device, GpuRecorder(device.gpu, clock, device.identity, probed.get(device.uuid)))
        for device in devices
        if device.gpu is not None
    ]
    return Session(gpus, host, clock, hands)


def _recent_watts(t: Sequence[int], joules: Sequence[float]) -> float:
    if len(t) < 2 or t[-1] == t[-2]:
        return math.nan
    return (joules[-1] - joules[-2]) / ((t[-1] - t[-2]) / 1e9)
