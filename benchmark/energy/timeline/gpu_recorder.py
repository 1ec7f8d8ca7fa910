"""Records what a GPU's meters say, and lays it on curves. A recorder never raises: what goes wrong becomes a fact of
the record.

Two locks: `_calls` keeps the order of calls into the driver, and may be held as long as the driver takes; `lock` keeps
the curves whole, and is never held during a call.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.energy.meters.nvml import POWER_SOURCES, Gpu, NvmlError, PowerSource, Slow
from benchmark.energy.meters.sensors import Sensor, sensor_for
from benchmark.energy.timeline.clock import Clock
from benchmark.energy.timeline.curves import CounterCurve, PowerCurve
from benchmark.energy.timeline.raw import Raw
from benchmark.energy.timeline.thinning import EVERY_NS, SLOW_SLOT_NS, WHOLE_NS, kept

NO_COUNT = 2**62
"""A counter at or above this many mJ is no count: a driver in trouble answers with all ones (2**64 - 1)."""
NO_POWER_MW = 2**31
"""The same for power: all ones are 4.3 MW."""
TICK_TIMEOUT_S = 0.5
STILL_LOST = 2**62
"""The end of an outage that has not ended: later than any time."""
POLL_S = 0.0002
TOP_W = 3000.0
"""Twice what any single board draws: the bound where a board tells no limit."""
BURST = 2.0
"""A board may exceed its power limit for some milliseconds, but never by this factor over a tick of its counter."""


class GpuRecorder:
    """One GPU's readings: curves, raw readings, and everything that went wrong, with its time."""

    def __init__(
        self, gpu: Gpu, clock: Clock, identity: dict[str, Any], probed: Mapping[str, Any] | None = None
    ) -> None:
        self.gpu = gpu
        self.identity = identity
        self.lock = threading.RLock()
        self.raw = Raw()
        self.power = PowerCurve()
        self.ring = PowerCurve()
        limit_w = identity.get("power_limit_w")
        self.counter = CounterCurve(most_w=BURST * limit_w if limit_w else TOP_W)
        self.probed: Mapping[str, Any] = probed or {}
        tick_ms = self.probed.get("counter_tick_ms")
        self.counter.tick_period_ns = None if not tick_ms else int(tick_ms * 1e6)
        self.slow: list[tuple[int, Slow]] = []
        self.unsupported: dict[str, str] = {}
        self.errors: list[tuple[int, str]] = []
        self.lost: list[tuple[int, int]] = []
        self.zero_readings: list[int] = []
        self.garbage: list[tuple[int, int]] = []
        self.fault = ""
        self._clock = clock
        self._calls = threading.Lock()
        self._ladder: list[PowerSource] = list(POWER_SOURCES)
        self._answered: set[str] = set()
        self._refused: dict[str, str] = {}
        """The driver's last words about each source that has failed."""
        self._ring_since_us = 0
        self._failures = 0
        self._quiet_until_ns = 0
        self.edges: list[int] = []
        self._thinned_ns = 0
        self._last_poll: tuple[int, int, int] | None = None

    @property
    def power_source(self) -> str:
        """The power field in use; empty if none answers."""
        return self._ladder[0] if self._ladder else ""

    @property
    def sensor(self) -> Sensor:
        """The sensor behind the power field in use, with its period as probed where it was."""
        sensor = sensor_for(self.identity, self.power_source or "samples")
        period_ms = self.probed.get("power_fields", {}).get(self.power_source, {}).get("period_ms")
        return sensor if not period_ms else Sensor(period_ms / 1000, sensor.window_s, "T probed, W " + sensor.origin)

    @property
    def has_counter(self) -> bool:
        """Whether the energy counter answered or may still answer."""
        return "counter" not in self.unsupported

    @property
    def counts(self) -> bool:
        """Whether the energy counter has answered, or was not asked yet."""
        return self.has_counter and (self.counter.reads > 0 or "counter" not in self._refused)

    @property
    def refusals(self) -> dict[str, str]:
        """Why each source that gives nothing gives nothing, in the driver's own words: not supported, or it has failed
        at every call."""
        silent = {name: words for name, words in self._refused.items() if name not in self._answered}
        return {**silent, **self.unsupported}

    def sample(self, *, edge: bool = False) -> None:
        """Read counter and power once. An edge read ignores the back-off after errors."""
        with self._calls:
            if not edge and self._clock.now_ns() < self._quiet_until_ns:
                return
            try:
                self._read_counter()
                self._read_power()
            except Exception as error:
                self.fault = f"tracer fault: {type(error).__name__}: {error}"

    def note(self, text: str) -> None:
        """Keep what went wrong, with the time."""
        self.errors.append((self._clock.now_ns(), text))

    def _timed(self, call: Callable[..., int], *args: object) -> tuple[int, int, int]:
        """(mid-point, value, duration) of a call, times in ns."""
        start_ns = self._clock.now_ns()
        value = call(*args)
        end_ns = self._clock.now_ns()
        return (start_ns + end_ns) // 2, value, end_ns - start_ns

    def _read_counter(self, *, polling: bool = False) -> bool:
        """One read of the energy counter; True if it moved."""
        if not self.has_counter:
            return False
        try:
            read = self._timed(self.gpu.energy_mj)
        except NvmlError as error:
            self._failed(error, "counter")
            return False
        with self.lock:
            self._worked(read[0], "counter")
            if read[1] >= NO_COUNT:
                self.garbage.append((read[0], read[0]))
                return False
            moved = self.counter.add(read[0], read[1] / 1000, read[2])
            if not polling:
                self.raw.add(read[0], "counter_mj", read[1], read[2])
            elif moved:
                for kept in (self._last_poll, read):
                    if kept is not None:
                        self.raw.add(kept[0], "counter_mj", kept[1], kept[2])
            self._last_poll = read
            return moved

    def _read_power(self) -> None:
        """One reading by the first field of the ladder that answers. The fields above it that never did are left out
        from then on: a curve must not mix two sensors."""
        for source in tuple(self._ladder):
            try:
                read = self._timed(self.gpu.power_mw, source)
            except NvmlError as error:
                self._failed(error, source)
                if source in self._answered or error.kind == "lost":
                    return
                continue
            with self.lock:
                del self._ladder[: self._ladder.index(source)]
                self._worked(read[0], source)
                self._keep_power(source, read)
            return

    def _keep_power(self, source: PowerSource, read: tuple[int, int, int]) -> None:
        if read[1] >= NO_POWER_MW:
            self.errors.append((read[0], f"{source}: {read[1]} mW is no power"))
            return
        self.raw.add(read[0], f"{source}_mw", read[1], read[2])
        if read[1] > 0:
            self.power.add(read[0], read[1] / 1000)
        else:  # a sensor that says 0 mW under load has nothing to say; a running board draws more
            self.zero_readings.append(read[0])

    def _failed(self, error: NvmlError, source: str) -> None:
        """Book a failed call. A source that is not supported is left out from now on."""
        now_ns = self._clock.now_ns()
        self._refused[source] = str(error)
        if error.kind == "unsupported":
            self.unsupported[source] = str(error)
            if source in self._ladder:
                self._ladder.remove(source)
            return
        self.errors.append((now_ns, f"{source}: {error}"))
        if error.kind == "lost" and (not self.lost or self.lost[-1][1] != STILL_LOST):
            self.lost.append((now_ns, STILL_LOST))
        self._failures += 1
        self._quiet_until_ns = now_ns + int(1e8 * min(10, 2 ** (self._failures - 1)))
        if self._failures == 3:
            try:
                self.gpu.reopen()
            except NvmlError as second:
                self.errors.append((now_ns, f"reopen: {second}"))

    def _worked(self, t_ns: int, source: str) -> None:
        self._failures = 0
        self._answered.add(source)
        if self.lost and self.lost[-1][1] == STILL_LOST:
            self.lost[-1] = (self.lost[-1][0], t_ns)

    def sample_slow(self) -> None:
        """Read clocks, temperature, throttling, processes; and the driver's ring buffer where there is no counter."""
        with self._calls:
            now_ns = self._clock.now_ns()
            if now_ns < self._quiet_until_ns:
                return
            try:
                slow = self.gpu.slow()
                with self.lock:
                    self.slow.append((now_ns, slow))
                    self._thin(now_ns)
            except NvmlError as error:
                self.errors.append((now_ns, f"slow: {error}"))
            except Exception as error:
                self.fault = f"tracer fault: {type(error).__name__}: {error}"
            if not self.counts:
                self._read_ring()

    def edge(self, t_ns: int) -> None:
        """A window or a pause begins or ends here: what was read around this time is never thinned."""
        self.edges.append(t_ns)

    def _thin(self, now_ns: int) -> None:
        """Thin, now and then, what is older than an hour."""
        until_ns = now_ns - WHOLE_NS
        if not self.slow or until_ns - max(self._thinned_ns, self.slow[0][0]) < EVERY_NS:
            return
        edges = sorted(self.edges)
        for each in (self.raw, self.counter, self.power, self.ring):
            each.thin(until_ns, edges)
        high = bisect_left(self.slow, until_ns, key=lambda entry: entry[0])
        stay = kept([t for t, _ in self.slow[:high]], 0, high, edges, SLOW_SLOT_NS)
        self.slow[:high] = [self.slow[i] for i in stay]
        self._thinned_ns = until_ns

    def fetch_ring(self) -> None:
        """Fetch what the driver's ring buffer has gathered, where it is the best source."""
        with self._calls:
            if not self.counts:
                self._read_ring()

    def _read_ring(self) -> None:
        if "samples" in self.unsupported:
            return
        # the driver stamps with wall time: map it onto the monotonic clock again at every fetch, so that a clock step
        # touches one fetch
        wall_us = self._clock.wall_us()
        offset_ns = self._clock.now_ns() - wall_us * 1000
        self._ring_since_us = min(self._ring_since_us, wall_us)  # the wall clock may have been set back
        try:
            samples = self.gpu.power_samples(self._ring_since_us)
        except NvmlError as error:
            if error.kind == "unsupported":
                self.unsupported["samples"] = str(error)
            else:
                self.errors.append((self._clock.now_ns(), f"samples: {error}"))
            return
        with self.lock:
            for stamp_us, milliwatts in samples:
                self._ring_since_us = max(self._ring_since_us, stamp_us)
                if 0 < milliwatts < NO_POWER_MW:
                    self.ring.add(stamp_us * 1000 + offset_ns, milliwatts / 1000)
                    self.raw.add(stamp_us * 1000 + offset_ns, "samples_mw", milliwatts, 0)

    def wait_tick(self, timeout_s: float = TICK_TIMEOUT_S) -> tuple[int, float, float] | None:
        """Wait for the counter's next tick: (time, joules, half-width of the time in s); None if none came in time."""
        deadline = self._clock.now_ns() + int(timeout_s * 1e9)
        seen = len(self.counter.t)
        while self._clock.now_ns() < deadline:
            with self._calls:
                try:
                    self._read_counter(polling=True)
                except Exception as error:
                    self.fault = f"tracer fault: {type(error).__name__}: {error}"
                    return None
                if len(self.counter.t) > seen:
                    return self.counter.t[-1], self.counter.j[-1], self.counter.half_width[-1] / 1e9
                seen = min(seen, len(self.counter.t))
            self._clock.sleep(POLL_S)
        return None
