"""A virtual clock and a GPU whose power curve, and so whose energy, is known exactly."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmark.energy.meters.device import Device
from benchmark.energy.meters.nvml import NvmlError, Slow

START_NS = 1_000_000_000_000


class VirtualTicker:
    def __init__(self, clock: VirtualClock, period_s: float, call: Callable[[], None]) -> None:
        self.clock, self.period_ns, self.call = clock, round(period_s * 1e9), call
        self.due_ns = clock.now_ns()

    def stop(self) -> None:
        if self in self.clock.tickers:
            self.clock.tickers.remove(self)


class VirtualClock:
    """Time passes only when told to; tickers beat on their absolute schedule while it does."""

    def __init__(self) -> None:
        self.ns = START_NS
        self.wall_offset_us = 1_700_000_000_000_000
        self.tickers: list[VirtualTicker] = []
        self._beating = False

    def now_ns(self) -> int:
        return self.ns

    def wall_us(self) -> int:
        return self.ns // 1000 + self.wall_offset_us

    def ticker(self, period_s: float, call: Callable[[], None]) -> VirtualTicker:
        made = VirtualTicker(self, period_s, call)
        self.tickers.append(made)
        return made

    def spend(self, seconds: float) -> None:
        """Time that a call costs."""
        self.ns += round(seconds * 1e9)

    def sleep(self, seconds: float) -> None:
        target = self.ns + round(seconds * 1e9)
        while not self._beating:
            due = [ticker for ticker in self.tickers if ticker.due_ns <= target]
            if not due:
                break
            ticker = min(due, key=lambda one: one.due_ns)
            self.ns = max(self.ns, ticker.due_ns)
            self._beating = True
            ticker.call()
            self._beating = False
            ticker.due_ns += ticker.period_ns
            while ticker.due_ns < self.ns:
                ticker.due_ns += ticker.period_ns
        self.ns = max(self.ns, target)

    @property
    def t(self) -> float:
        """Seconds since the start."""
        return (self.ns - START_NS) / 1e9


@dataclass
class Curve:
    """Power in watts over seconds, straight between knots, flat beyond; `energy` is its exact integral from 0."""

    knots: list[tuple[float, float]]

    def power(self, t: float) -> float:
        knots = self.knots
        if t <= knots[0][0]:
            return knots[0][1]
        for (a, p), (b, q) in itertools.pairwise(knots):
            if t < b:
                return p + (q - p) * (t - a) / (b - a) if b > a else q
        return knots[-1][1]

    def energy(self, t: float) -> float:
        knots = self.knots
        first_t, first_w = knots[0]
        total = first_w * min(t, first_t)
        for (a, p), (b, q) in itertools.pairwise(knots):
            if t <= a:
                return total
            end = min(t, b)
            if b > a:
                total += (p + p + (q - p) * (end - a) / (b - a)) / 2 * (end - a)
        return total + knots[-1][1] * max(0.0, t - knots[-1][0])


def constant(watts: float) -> Curve:
    return Curve([(0.0, watts)])


def step(low: float, high: float, start: float, end: float = 1e9) -> Curve:
    """`low`, then `high` from `start` to `end`, then `low`."""
    return Curve([(start, low), (start, high), (end, high), (end, low)])


@dataclass
class Wave:
    """A square wave from `low` to `high` with period `period`, high first."""

    low: float
    high: float
    period: float
    duty: float = 0.5

    def power(self, t: float) -> float:
        return self.high if t % self.period < self.period * self.duty else self.low

    def energy(self, t: float) -> float:
        whole = math.floor(t / self.period)
        rest = t - whole * self.period
        on = whole * self.period * self.duty + min(rest, self.period * self.duty)
        return self.low * t + (self.high - self.low) * on


@dataclass
class Sine:
    """mean + swing * sin(2 pi t / period)."""

    mean: float
    swing: float
    period: float

    def power(self, t: float) -> float:
        return self.mean + self.swing * math.sin(2 * math.pi * t / self.period)

    def energy(self, t: float) -> float:
        k = 2 * math.pi / self.period
        return self.mean * t + self.swing * (1 - math.cos(k * t)) / k


@dataclass
class Decay:
    """low + (high - low) * exp(-t / tau)."""

    low: float
    high: float
    tau: float

    def power(self, t: float) -> float:
        return self.low + (self.high - self.low) * math.exp(-t / self.tau)

    def energy(self, t: float) -> float:
        return self.low * t + (self.high - self.low) * self.tau * (1 - math.exp(-t / self.tau))


@dataclass
class FakeGpu:
    """A GPU with a counter that ticks and a sensor that averages W every T; faults are set by time or by field."""

    clock: VirtualClock
    curve: Any
    index: int = 0
    name: str = "Fake H100"
    uuid: str = "GPU-fake-0"
    arch: str = "hopper"
    limit_w: float = 700.0
    tick_s: float = 0.1
    phase_s: float = 0.0
    period_s: float = 0.1
    window_s: float = 0.025
    average_s: float = 1.0
    call_s: float = 0.0
    unsupported: tuple[str, ...] = ("samples", "field191")
    lost: tuple[float, float] = (math.inf, math.inf)
    reset_s: float = math.inf
    stale: tuple[float, float] = (math.inf, math.inf)
    deaf: Callable[[float], bool] = lambda t: False
    zero: Callable[[float], bool] = lambda t: False
    raises: BaseException | None = None
    mig: bool = False
    pids: tuple[int, ...] = ()
    reopened: int = 0
    calls: list[str] = field(default_factory=list)

    def _enter(self, name: str) -> float:
        self.calls.append(name)
        self.clock.spend(self.call_s / 2)
        t = self.clock.t
        if self.raises is not None:
            raise self.raises
        if name in self.unsupported:
            raise NvmlError("unsupported", "Not Supported")
        if self.lost[0] <= t < self.lost[1]:
            raise NvmlError("lost", "GPU is lost")
        if self.deaf(t):
            raise NvmlError("other", "Timeout")
        return t

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "uuid": self.uuid,
            "pci": f"0000:0{self.index}:00.0",
            "arch": self.arch,
            "vbios": "1",
            "power_limit_w": self.limit_w,
            "persistence": 1,
            "ecc": 1,
            "mig": self.mig,
        }

    def counter_j(self, t: float) -> float:
        if self.stale[0] <= t < self.stale[1]:
            t = self.stale[0]
        shown = math.floor((t - self.phase_s) / self.tick_s + 1e-9) * self.tick_s + self.phase_s if self.tick_s else t
        base = 1e6
        if shown >= self.reset_s:
            return self.curve.energy(shown) - self.curve.energy(self.reset_s)
        return base + self.curve.energy(shown)

    def energy_mj(self) -> int:
        t = self._enter("counter")
        value = int(self.counter_j(t) * 1000)
        self.clock.spend(self.call_s / 2)
        return value

    def energy_field_mj(self) -> int:
        t = self._enter("field191")
        return int(self.counter_j(t) * 1000)

    def _sensor(self, t: float, window_s: float) -> float:
        if self.period_s == 0:
            return self.curve.power(t)
        q = math.floor(t / self.period_s + 1e-9) * self.period_s
        if window_s == 0:
            return self.curve.power(q)
        return (self.curve.energy(q) - self.curve.energy(q - window_s)) / window_s

    def power_mw(self, source: str) -> int:
        t = self._enter(source)
        watts = self._sensor(t, self.average_s if source == "power.usage" else self.window_s)
        self.clock.spend(self.call_s / 2)
        return 0 if self.zero(t) else round(watts * 1000)

    def power_samples(self, since_us: int) -> list[tuple[int, int]]:
        t = self._enter("samples")
        found = []
        for back in range(120, -1, -1):
            stamp = (math.floor(t / self.period_s + 1e-9) - back) * self.period_s
            stamp_us = round(stamp * 1e6) + START_NS // 1000 + self.clock.wall_offset_us
            if stamp_us > since_us:
                found.append((stamp_us, round(self._sensor(stamp, self.window_s) * 1000)))
        return found

    def slow(self) -> Slow:
        t = self._enter("slow")
        return Slow(1500.0, 2600.0, 50.0, 0, 4, 90.0, 40.0, self.pids, {"power": int(t * 1e6), "thermal": 0})

    def reopen(self) -> None:
        self.reopened += 1


class SteadyGpu(FakeGpu):
    """200 W on the machine's own clock, a tick of 20 ms, calls that cost nothing: for real threads and processes."""

    def _enter(self, name: str) -> float:
        return 0.0

    def energy_mj(self) -> int:
        return int(time.monotonic() // 0.02 * 0.02 * 200_000)

    def power_mw(self, source: str) -> int:
        return 200_000


def assert_steady(reading) -> None:
    """A SteadyGpu's window: within its own interval or a tenth, because a busy machine delays real threads."""
    true = 200 * reading.seconds
    assert abs(reading.joules - true) <= max(reading.ci95_joules, 0.1 * true), reading.text


@dataclass
class FakeNvml:
    fakes: list[FakeGpu]
    parents: dict[str, int] = field(default_factory=dict)

    def versions(self) -> dict[str, str]:
        return {"driver": "999.00", "nvml": "12.999.00"}

    def gpus(self) -> list[Any]:
        return list(self.fakes)

    def mig_parent(self, uuid: str) -> int | None:
        return self.parents.get(uuid)


def device_of(gpu: FakeGpu, **changes: Any) -> Device:
    """A Device around a fake, as find_device would make it."""
    values: dict[str, Any] = {
        "kind": "cuda",
        "torch_name": f"cuda:{gpu.index}",
        "name": gpu.name,
        "uuid": gpu.uuid,
        "driver": "999.00",
        "power_limit_w": gpu.limit_w,
        "nvml_index": gpu.index,
        "source": "nvml:counter",
        "grade_best": "A",
        "mig": gpu.mig,
        "identity": {**gpu.identity(), "driver": "999.00", "nvml": "12"},
        "gpu": gpu,
    }
    return Device(**{**values, **changes})
