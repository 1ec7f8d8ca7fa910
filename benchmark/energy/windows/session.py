"""What is recorded while windows are open: the recorders of devices and host, and what windows ask of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.energy.judge.evaluate import Aligned
from benchmark.energy.meters.device import Device
from benchmark.energy.meters.rapl import POWERCAP
from benchmark.energy.timeline.clock import Clock
from benchmark.energy.timeline.recorder import STILL_LOST, TICK_TIMEOUT_S, GpuRecorder, HostRecorder
from benchmark.energy.timeline.sampler import PERIOD_S
from benchmark.energy.windows.window import Tick, Window

NO_TICK = f"no tick of the energy counter came within {TICK_TIMEOUT_S} s (stale)"
RESET = "the energy counter was reset in the window or right after it (driver reload or GPU reset)"
GAP_SHARE = 0.02
"""How far the power right after the work may differ from that one tick later: standard uncertainty of the gap
correction."""


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


@dataclass
class Session:
    """The recorders of one stretch of open windows: made with the first window, kept by their windows, forgotten with
    the last."""

    gpus: tuple[tuple[Device, GpuRecorder], ...]
    host: HostRecorder
    users: int = 0

    def read(self) -> None:
        """Read every meter once, now."""
        for _, recorder in self.gpus:
            recorder.sample(edge=True)
        self.host.sample()

    def align_start(self, window: Window) -> None:
        """Begin at a tick of the counter. Ticks of several GPUs do not fall together, so only a single GPU is
        aligned."""
        if len(self.gpus) != 1 or not self.gpus[0][1].has_counter:
            return
        device, recorder = self.gpus[0]
        tick = recorder.wait_tick()
        if tick is None:
            window.error = _why_no_tick(recorder)
            return
        window.ticks[device.uuid] = Tick(*tick)
        window.start_ns = tick[0]

    def align_end(self, window: Window) -> None:
        """End at a tick: two more ticks tell the power after the work, and so what to take off for the wait until the
        first."""
        for device, recorder in self.gpus:
            start = window.ticks.get(device.uuid)
            if start is None:
                continue
            first = recorder.wait_tick()
            second = recorder.wait_tick() if first is not None else None
            if first is None or second is None:
                window.error = window.error or _why_no_tick(recorder)
                continue
            if any(after_ns > start.t_ns for _, after_ns in recorder.counter.resets):
                window.error = window.error or RESET
                continue
            after_w = (second[1] - first[1]) / ((second[0] - first[0]) / 1e9)
            gap_j = -after_w * (first[0] - window.end_ns) / 1e9
            stamp_sd_s = math.hypot(start.half_width_s, first[2]) / math.sqrt(3)
            window.aligned[device.uuid] = Aligned(
                start.joules, first[1] + gap_j, gap_j, stamp_sd_s, GAP_SHARE * abs(gap_j), after_w
            )

    def peek(self, window: Window, now_ns: int) -> tuple[float, float]:
        """(useful joules so far, watts now) from what has been recorded."""
        span = window.span(now_ns)
        if not self.gpus:
            curve = self.host.package
            joules = span.total_energy(curve.energy_at) - span.paused_energy(curve.energy_at)
            return joules, _recent_watts(curve.t, curve.j)
        joules, watts = 0.0, 0.0
        for _, recorder in self.gpus:
            energy_at = recorder.counter.energy_at if len(recorder.counter.t) > 1 else recorder.power.energy_at
            joules += span.total_energy(energy_at) - span.paused_energy(energy_at)
            watts += recorder.power.w[-1] if recorder.power.w else _recent_watts(recorder.counter.t, recorder.counter.j)
        return joules, watts


def _why_no_tick(recorder: GpuRecorder) -> str:
    if recorder.lost and recorder.lost[-1][1] == STILL_LOST:
        return "the GPU was lost while a tick of its energy counter was waited for"
    last = recorder.counter.last_read
    if recorder.garbage and (last is None or recorder.garbage[-1][0] > last[0]):
        return "the energy counter read all ones while its tick was waited for"
    return NO_TICK


def new_session(devices: Sequence[Device], clock: Clock, tdp_w: float | None, options: Options) -> Session:
    """Fresh recorders for the devices that NVML can reach, and for the host."""
    gpus = tuple(
        (device, GpuRecorder(device.gpu, clock, device.identity, options.probed.get(device.uuid)))
        for device in devices
        if device.gpu is not None
    )
    return Session(gpus, HostRecorder(clock, tdp_w, options.powercap))


def _recent_watts(t: Sequence[int], joules: Sequence[float]) -> float:
    if len(t) < 2 or t[-1] == t[-2]:
        return math.nan
    return (joules[-1] - joules[-2]) / ((t[-1] - t[-2]) / 1e9)
