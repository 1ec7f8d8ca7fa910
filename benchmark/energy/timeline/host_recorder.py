"""Records what the host's meters say. Like every recorder it never raises: what goes wrong becomes a fact of the
record."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmark.energy.meters import estimate
from benchmark.energy.meters.meter import Meter, Together
from benchmark.energy.meters.rapl import POWERCAP, Packages, open_rapl, read_zones
from benchmark.energy.timeline.clock import Clock
from benchmark.energy.timeline.curves import TotalCurve
from benchmark.energy.timeline.raw import Raw

MOST_MJ = 2**62
"""More millijoules than any meter has counted: a larger number is none."""


LOST_S = 0.1
"""CPU seconds that may be missing of our own: ticks of 10 ms, rounded for each process."""


class Rung:
    """One meter of the host with its curve. `fault` says why it can no longer be read."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.curve = TotalCurve()
        self.fault = ""

    def read(self) -> float:
        """Joules so far; NaN, with the reason in `fault`, where the meter cannot tell."""
        try:
            joules = float(self.meter.read())
        except Exception as error:
            self.fault = f"{self.meter.source}: {type(error).__name__}: {error}"
            return math.nan
        if not abs(joules) * 1000 < MOST_MJ:  # NaN, too
            told = getattr(self.meter, "fault", "")
            self.fault = told or f"{self.meter.source}: it gave {joules} J"
            return math.nan
        return joules


class HostRecorder:
    """The host's readings. `rungs` is a ladder: RAPL where it can be read, and the estimate below it; or the meters
    that were given, added up, and nothing below them."""

    def __init__(
        self, clock: Clock, tdp_w: float | None = None, powercap: Path = POWERCAP, meters: Sequence[Meter] = ()
    ) -> None:
        self.lock = threading.RLock()
        self.raw = Raw()
        self.dram = TotalCurve()
        self.rapl = open_rapl(powercap)
        self.model = estimate.TdpLoad(tdp_w)
        self.own_cpu = TotalCurve()
        """CPU seconds of this process and its descendants."""
        self.busy_cpu = TotalCurve()
        """CPU seconds of every process of the computer."""
        self.fault = ""
        self.call_ns = 0
        self._clock = clock
        self._calls = threading.Lock()
        found: list[Meter] = [self.model]
        if self.rapl.package:
            found = [Packages(self.rapl.package, clock.now_ns), self.model]
        if meters:
            found = [Together(meters)]
        self.rungs = [Rung(meter) for meter in found]

    @property
    def source(self) -> str:
        """The first rung's meter."""
        return self.rungs[0].meter.source

    @property
    def package(self) -> TotalCurve:
        """What the first rung's meter has counted."""
        return self.rungs[0].curve

    def sample(self) -> None:
        """Read every rung and the memory once."""
        with self._calls:
            start_ns = self._clock.now_ns()
            try:
                totals = [rung.read() for rung in self.rungs]
                dram = read_zones(self.rapl.dram, start_ns)
                own, busy = self._cpu_seconds()
            except Exception as error:
                self.fault = f"tracer fault: {type(error).__name__}: {error}"
                return
            end_ns = self._clock.now_ns()
            with self.lock:
                t_ns = (start_ns + end_ns) // 2
                self._keep(t_ns, end_ns - start_ns, totals, dram)
                self.own_cpu.add(t_ns, own)
                self.busy_cpu.add(t_ns, busy)

    def _cpu_seconds(self) -> tuple[float, float]:
        """CPU seconds of our processes, and of all; NaN where they cannot be told. No energy may depend on them."""
        try:
            if all(rung.meter is not self.model for rung in self.rungs):
                self.model.read()
            if self.model.lost_s > LOST_S:  # what they do next would look like the work of others
                return math.nan, math.nan
            return self.model.cpu_s, estimate.busy_cpu_seconds()
        except Exception:
            return math.nan, math.nan

    def _keep(self, t_ns: int, call_ns: int, totals: list[float], dram: float) -> None:
        self.call_ns = call_ns
        for rung, total in zip(self.rungs, totals, strict=True):
            rung.curve.add(t_ns, total)
        if not math.isnan(totals[0]):
            self.raw.add(t_ns, "package_mj", round(totals[0] * 1000), call_ns)
        if self.rapl.dram:
            self.dram.add(t_ns, dram)
            if not math.isnan(dram):
                self.raw.add(t_ns, "dram_mj", round(dram * 1000), call_ns)

    def sample_slow(self) -> None:
        """The sampler's slow lane: RAPL does not wrap within a second, and the estimate walks the process tree."""
        self.sample()
