"""What a record must know about its number besides the number: device, sensors, clocks, temperatures, throttling, gaps,
versions."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
import sys
from bisect import bisect_left, bisect_right
from typing import Any

from benchmark.energy.judge.evaluate import Evaluation, is_aliased, mistrusted
from benchmark.energy.meters import estimate
from benchmark.energy.meters.neighbours import neighbours
from benchmark.energy.meters.nvml import Slow
from benchmark.energy.timeline.gpu_recorder import GpuRecorder
from benchmark.energy.timeline.host_recorder import HostRecorder
from benchmark.energy.timeline.marks import Aligned
from benchmark.energy.timeline.span import Span
from benchmark.intervals import quantile

SCHEMA = 1
TRACER_VERSION = "1.0"
GAIN = 0.05
"""Absolute error of a board's power readings that no averaging removes; it cancels in ratios on one board."""
POWER_CAP = 0x4
"""The bit of NVML's clock event reasons for a board that keeps to its power limit: many boards' steady state."""
SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80
"""The bits for a board in trouble: hardware slowdown, software thermal, hardware thermal, power brake."""
PAPER_PERIOD_S = 0.1
PAPER_QUERY_S = 0.08
"""The 2021 tracer slept 0.1 s and then launched `nvidia-smi -q -x`; what the launch took is not published, 0.08 s
reproduces its P100 row."""


@functools.cache
def host_facts() -> dict[str, Any]:
    """Host, CPU, Python: the same for every window of a process."""
    return {
        "host": os.uname().nodename,
        "cpu_model": estimate.cpu_name(),
        "logical_cores": os.cpu_count(),
        "virtualised": estimate.virtualised(),
        "python": sys.version.split()[0],
        "os": " ".join((os.uname().sysname, os.uname().release, os.uname().machine)),
    }


def versions() -> dict[str, str | None]:
    """Versions of what may have done the work, if it is loaded."""
    torch = sys.modules.get("torch")
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    return {"torch": getattr(torch, "__version__", None) and str(torch.__version__), "cuda": cuda}  # type: ignore[union-attr]  # guarded


def _stamp(entry: tuple[int, Slow]) -> int:
    return entry[0]


def _around(recorder: GpuRecorder, span: Span) -> list[tuple[int, Slow]]:
    low = bisect_left(recorder.slow, span.start_ns, key=_stamp)
    high = bisect_right(recorder.slow, span.end_ns, key=_stamp)
    return recorder.slow[max(0, low - 1) : high + 1]


def slow_around(recorder: GpuRecorder, span: Span) -> list[Slow]:
    """The slow readings of the window and the nearest one on either side: for what changes slowly (temperature), is a
    mean over the time before (utilisation), or must not be missed (other processes)."""
    return _once_a_second(_around(recorder, span))


def slow_inside(recorder: GpuRecorder, span: Span) -> list[Slow]:
    """The slow readings of the window's useful time alone; a short window may have none. A clock read just before the
    work began is an idle clock, and says nothing about the work."""
    inside: list[Slow] = []
    for start_ns, end_ns in span.segments():
        low = bisect_left(recorder.slow, start_ns, key=_stamp)
        high = bisect_right(recorder.slow, end_ns, key=_stamp)
        inside += _once_a_second(recorder.slow[low:high])
    return inside


def _once_a_second(entries: list[tuple[int, Slow]]) -> list[Slow]:
    """The readings, those from a thinned stretch as often as they stand for seconds: no mean may favour the last
    hour."""
    found: list[Slow] = []
    for (t, slow), (after, _) in itertools.zip_longest(entries, entries[1:], fillvalue=(0, None)):
        seconds = round((after - t) / 1e9) if after else 1
        found += [slow] * (min(10, max(1, seconds)) if seconds > 2 else 1)  # type: ignore[list-item]  # only `after` is filled
    return found


def mean_of(slows: list[Slow], name: str) -> float:
    """Mean of a slow reading; NaN if the device does not give it."""
    values = [float(value) for slow in slows if (value := getattr(slow, name)) is not None]
    return math.fsum(values) / len(values) if values else math.nan


def _throttled(recorder: GpuRecorder, span: Span) -> dict[str, int | None]:
    """Nanoseconds of the useful time throttled by cause, None where the device does not count them."""
    found: dict[str, int | None] = {}
    for cause in ("power", "thermal", "board_limit", "reliability"):
        totals = [(t, slow.throttle_ns[cause]) for t, slow in _around(recorder, span) if cause in slow.throttle_ns]
        grown = [_total_at(totals, end) - _total_at(totals, start) for start, end in span.segments()]
        found[f"throttle_{cause}_ns"] = round(math.fsum(grown)) if len(totals) > 1 else None
    return found


def _total_at(totals: list[tuple[int, int]], t_ns: int) -> float:
    """A running total at a time: on the line through the two readings around it, or nearest to it. A window's edges lie
    between readings a second apart, and what came outside of it is not its own."""
    if len(totals) < 2:
        return math.nan
    place = min(max(1, bisect_right(totals, t_ns, key=lambda entry: entry[0])), len(totals) - 1)
    (before_ns, low), (after_ns, high) = totals[place - 1], totals[place]
    return low + (high - low) * (t_ns - before_ns) / max(1, after_ns - before_ns)


def _clocks(slows: list[Slow]) -> dict[str, Any]:
    """Clocks, and what held them down, by the readings of the window itself; NaN and None where it has none."""
    sm = [float(s.sm_clock_mhz) for s in slows if s.sm_clock_mhz is not None]
    reasons = [s.event_reasons for s in slows if s.event_reasons is not None]
    return {
        "slow_samples": len({id(slow) for slow in slows}),
        "sm_clock_mhz_p5": quantile(sm, 0.05),
        "sm_clock_mhz_p50": quantile(sm, 0.5),
        "sm_clock_mhz_p95": quantile(sm, 0.95),
        "mem_clock_mhz": mean_of(slows, "mem_clock_mhz"),
        "event_reasons": functools.reduce(operator.or_, reasons) if reasons else None,
        "slowdown_samples": sum(bool(bits & SLOWDOWN) for bits in reasons) if reasons else None,
        "capped_samples": sum(bool(bits & POWER_CAP) for bits in reasons) if reasons else None,
    }


def _temperatures(slows: list[Slow]) -> dict[str, float]:
    temps = [float(s.temp_c) for s in slows if s.temp_c is not None]
    return {
        "temp_start_c": temps[0] if temps else math.nan,
        "temp_end_c": temps[-1] if temps else math.nan,
        "temp_max_c": max(temps, default=math.nan),
    }


def sampling(recorder: GpuRecorder, span: Span) -> dict[str, Any]:
    """How the window was sampled: number, periods, gaps, ticks."""
    inside = recorder.power.between(span.start_ns, span.end_ns)
    times = recorder.power.t[inside]
    steps_ms = [(b - a) / 1e6 for a, b in itertools.pairwise(times)]
    tick_s = recorder.counter.tick_s(span.start_ns, span.end_ns)
    return {
        "n_samples": len(times),
        "sample_period_ms_p50": quantile(steps_ms, 0.5),
        "sample_period_ms_p99": quantile(steps_ms, 0.99),
        "max_gap_ms": max(steps_ms, default=math.nan),
        "zero_readings": sum(span.start_ns <= t <= span.end_ns for t in recorder.zero_readings),
        "counter_ticks": recorder.counter.ticks_between(span.start_ns, span.end_ns),
        "counter_tick_ms": 1000 * tick_s,
        "nvml_errors": [text for t, text in recorder.errors if span.start_ns <= t <= span.end_ns][:16],
        "unsupported": recorder.refusals,
    }


def gpu_provenance(
    recorder: GpuRecorder, span: Span, best: Evaluation, aligned: Aligned | None, step_s: float | None
) -> dict[str, Any]:
    """Everything about a GPU's number."""
    slows = slow_around(recorder, span)
    beside = neighbours(slows, str(recorder.identity.get("uuid", "")))
    sensor = recorder.sensor
    return {
        **recorder.identity,
        "source_scope": "module" if best.source.endswith(".module") else "gpu",
        "power_source": recorder.power_source,
        "sensor_T_ms": 1000 * sensor.period_s,
        "sensor_W_ms": 1000 * sensor.window_s,
        "sensor_origin": sensor.origin,
        "aligned": aligned is not None,
        "gap_correction_j": aligned.gap_j if aligned else 0.0,
        "idle_after_w": aligned.after_w if aligned else math.nan,
        "idle_bare_w": recorder.probed.get("idle_bare_w"),
        "idle_context_w": recorder.probed.get("idle_context_w"),
        "probe_id": recorder.probed.get("id"),
        "u_stat_and_edge_joules": best.sd,
        "u_gain_joules": GAIN * best.joules,
        "step_period_ms": None if step_s is None else 1000 * step_s,
        "counter_doubt": mistrusted(recorder, span),
        "alias_flag": best.alias or bool(is_aliased(step_s, sensor.period_s, span.useful_s) and sensor.coverage < 0.9),
        **sampling(recorder, span),
        **_clocks(slow_inside(recorder, span)),
        **_temperatures(slows),
        "pstate": next((s.pstate for s in reversed(slows) if s.pstate is not None), None),
        **_throttled(recorder, span),
        "foreign_pids": beside.foreign,
        "resident_pids": beside.resident,
        "hidden_pids": beside.hidden,
        "xid_seen": None,  # NVML tells XIDs only to event listeners; the kernel log needs root
    }


SHORTEST_CPU_S = 0.5
"""The kernel counts the CPU time of others in ticks of 10 ms on each core: of a shorter window they tell little."""


def busy_cores(recorder: HostRecorder, span: Span) -> tuple[float, float, str]:
    """How many cores were busy on average in the useful time: (with this process and its descendants, with every other
    process, why that is not known)."""
    if span.useful_s < SHORTEST_CPU_S:
        return math.nan, math.nan, f"a window of less than {SHORTEST_CPU_S:g} s is too short to tell who used the cores"
    own, busy = (
        (span.total_energy(curve.energy_at) - span.paused_energy(curve.energy_at)) / span.useful_s
        for curve in (recorder.own_cpu, recorder.busy_cpu)
    )
    if math.isnan(own) or not recorder.own_cpu.known_between(span.start_ns, span.end_ns):
        why = "a child of this process ended elsewhere, or /proc cannot be read"
        return math.nan, math.nan, f"the CPU seconds of this process are unknown: {why}"
    if math.isnan(busy):
        return own, math.nan, "/proc/stat does not say how busy the computer was"
    # both are counted in ticks and read one after the other
    if busy < 0.9 * own - 0.1:
        return own, math.nan, "/proc/stat counts less than this process used: it is of another computer"
    return own, max(0.0, busy - own), ""


def host_provenance(recorder: HostRecorder, source: str) -> dict[str, Any]:
    """Everything about the host's number, which comes from `source`."""
    return {
        "cpu_source": source,
        "cpu_estimate": recorder.model.describe() if source == recorder.model.source else "",
        "rapl_reason": recorder.rapl.reason,
        "dram_reason": recorder.rapl.dram_reason,
        "host_call_us": recorder.call_ns / 1e3,
    }


def polled_energies(recorder: GpuRecorder, span: Span) -> tuple[float, float]:
    """Joules as two kinds of polling script book them: (mean sampled power x time, nominal period x sum of powers).

    The second walks as the 2021 tracer did, a query of PAPER_QUERY_S and a sleep of PAPER_PERIOD_S, and books each
    power for the sleep alone. Which of the two the paper's tables hold cannot be told from its text.
    """
    watts = [w for a, b in span.segments() for w in recorder.power.w[recorder.power.between(a, b)]]
    if not watts:
        return math.nan, math.nan
    mean = math.fsum(watts) / len(watts) * span.useful_s
    if recorder.power.thinned_ns > span.start_ns:  # samples are no longer even, but the curve's energy is
        mean = span.total_energy(recorder.power.energy_at) - span.paused_energy(recorder.power.energy_at)
    step_ns = int((PAPER_PERIOD_S + PAPER_QUERY_S) * 1e9)
    walked = [recorder.power.power_at(t) for a, b in span.segments() for t in range(a, b, step_ns)]
    return mean, math.fsum(walked) * PAPER_PERIOD_S
