"""What a device's meters can do, found by trying: counter tick, power fields, update period, call costs, idle power."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from benchmark.energy.judge.facts import SCHEMA, host_facts
from benchmark.energy.meters.device import Device
from benchmark.energy.meters.nvml import POWER_SOURCES, Gpu, NvmlError
from benchmark.energy.meters.sensors import sensor_for
from benchmark.energy.timeline.clock import Clock, SystemClock
from benchmark.intervals import quantile

TICKS = 20
POLL_S = 0.0005
CALLS = 20
IDLE_S = 10.0


def probe(
    device: Device, *, create_context: Callable[[], None] | None = None, cap_s: float = 40.0, clock: Clock | None = None
) -> dict[str, Any]:
    """What the device's meters can do, as JSON data; takes at most about `cap_s` seconds.

    `create_context` makes a CUDA context, so that idle power with one can be told from bare idle power. Each number is
    None where the device does not give it or the time ran out, with the reason in `notes`.
    """
    clock = clock or SystemClock()
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "device": {
            **device.identity,
            "name": device.name,
            "uuid": device.uuid,
            "driver": device.driver,
            "machine": device.machine,
        },
        "source": device.source,
        "grade_best": device.grade_best,
        "why_not_better": list(device.why_not_better),
        "host": host_facts(),
        "notes": [],
    }
    if device.gpu is None or device.mig:
        facts["notes"].append("no NVML meter to probe: " + ("; ".join(device.why_not_better) or "CPU"))
    else:
        _Prober(device.gpu, device, clock, cap_s, facts).run(create_context)
    facts["id"] = _fingerprint(facts)
    return facts


def _fingerprint(facts: dict[str, Any]) -> str:
    """Twelve hexadecimal digits by which a record points to this probe."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


class _Prober:
    """One probing of one GPU, with a deadline."""

    def __init__(self, gpu: Gpu, device: Device, clock: Clock, cap_s: float, facts: dict[str, Any]) -> None:
        self.gpu = gpu
        self.device = device
        self.clock = clock
        self.facts = facts
        self.deadline_ns = clock.now_ns() + int(cap_s * 1e9)

    def left_s(self) -> float:
        return (self.deadline_ns - self.clock.now_ns()) / 1e9

    def run(self, create_context: Callable[[], None] | None) -> None:
        self.facts["unsupported"] = {}
        self.facts["call_us"] = {name: self._cost(name, call) for name, call in self._calls().items()}
        share_s = self.left_s()
        idle_s = max(0.0, min(IDLE_S, (share_s - 8.0) / 2))
        self.facts["idle_bare_w"] = self._idle(idle_s)
        self.facts["counter_tick_ms"] = self._period(self.gpu.energy_mj, "counter")
        self.facts["power_fields"] = {source: self._field(source) for source in POWER_SOURCES}
        self.facts["samples"] = self._ring()
        self.facts["energy_field_191"] = self._cost("energy_field_191", self.gpu.energy_field_mj) is not None
        self.facts["idle_context_w"] = None
        if create_context is not None:
            create_context()
            self.facts["idle_context_w"] = self._idle(idle_s)

    def _calls(self) -> dict[str, Callable[[], object]]:
        calls: dict[str, Callable[[], object]] = {"counter": self.gpu.energy_mj, "slow": self.gpu.slow}
        for source in POWER_SOURCES:
            calls[source] = lambda source=source: self.gpu.power_mw(source)  # type: ignore[misc]  # mypy cannot type a default in a lambda
        return calls

    def _cost(self, name: str, call: Callable[[], object]) -> float | None:
        """Median microseconds of a call; None if it is refused."""
        costs = []
        try:
            for _ in range(CALLS):
                start_ns = self.clock.now_ns()
                call()
                costs.append((self.clock.now_ns() - start_ns) / 1e3)
        except NvmlError as error:
            self.facts["unsupported"][name] = str(error)
            return None
        return quantile(costs, 0.5)

    def _period(self, read: Callable[[], int], name: str) -> float | None:
        """Median milliseconds between changes of a reading, over TICKS changes or as many as the time allows (at least
        3)."""
        stamps: list[int] = []
        try:
            last = read()
            before_ns = self.clock.now_ns()
            until_ns = min(self.deadline_ns, before_ns + int(4e9))
            while len(stamps) <= TICKS and self.clock.now_ns() < until_ns:
                self.clock.sleep(POLL_S)
                value, now_ns = read(), self.clock.now_ns()
                if value != last:
                    stamps.append((before_ns + now_ns) // 2)
                last, before_ns = value, now_ns
        except NvmlError as error:
            self.facts["unsupported"][name] = str(error)
            return None
        steps = [(b - a) / 1e6 for a, b in itertools.pairwise(stamps)]
        if len(steps) < 3:
            self.facts["notes"].append(f"{name}: only {len(stamps)} change(s) seen, its period is unknown")
            return None
        return quantile(steps, 0.5)

    def _field(self, source: str) -> dict[str, Any]:
        """Support, scope and update period of a power field, with the table's averaging window."""
        sensor = sensor_for(self.device.identity, source)
        supported = source not in self.facts["unsupported"]
        return {
            "supported": supported,
            "scope": "module" if source.endswith(".module") else "gpu",
            "period_ms": self._period(lambda: self.gpu.power_mw(source), source) if supported else None,  # type: ignore[arg-type]  # from POWER_SOURCES
            "table_T_ms": 1000 * sensor.period_s,
            "table_W_ms": 1000 * sensor.window_s,
            "table_origin": sensor.origin,
        }

    def _ring(self) -> dict[str, Any]:
        """Whether the driver keeps a ring of samples, how long it is and how dense."""
        try:
            samples = self.gpu.power_samples(0)
        except NvmlError as error:
            return {"supported": False, "reason": str(error)}
        steps = [(b[0] - a[0]) / 1e3 for a, b in itertools.pairwise(samples)]
        return {"supported": True, "length": len(samples), "period_ms": quantile(steps, 0.5) if steps else None}

    def _idle(self, seconds: float) -> float | None:
        """Mean watts over some seconds of doing nothing; None if the time is too short or power cannot be read."""
        if seconds < 1.0:
            self.facts["notes"].append("idle power: too little time left")
            return None
        source = next((s for s in POWER_SOURCES if s not in self.facts["unsupported"]), None)
        if source is None:
            return None
        watts: list[float] = []
        until_ns = self.clock.now_ns() + int(seconds * 1e9)
        while self.clock.now_ns() < until_ns:
            try:
                milliwatts = self.gpu.power_mw(source)
            except NvmlError as error:
                self.facts["notes"].append(f"idle power: {error}")
                return None
            if milliwatts > 0:
                watts.append(milliwatts / 1000)
            self.clock.sleep(0.05)
        return math.fsum(watts) / len(watts) if watts else None
