"""From readings on a timeline to joules with an uncertainty, a grade and a reason. Pure arithmetic."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from benchmark.energy.timeline.curves import PowerCurve
from benchmark.energy.timeline.recorder import KINDS, GpuRecorder, HostRecorder
from benchmark.energy.timeline.span import Span

AGREE = 0.05
"""Counter and sampled power must agree this well on windows of `AGREE_FROM_S` or more."""
AGREE_FROM_S = 5.0
TICKS_FOR_A = 100
MAX_UNMEASURED = 0.05
GAP_PERIODS = 3
DEFAULT_TICK_S = 0.1
MOST_PHASES = 4
B_RELATIVE_SD = 0.01
"""An interpolated counter whose standard uncertainty is above this share of its energy is no grade B."""
RAPL_TICK_S = 0.001
RAPL_SHORTEST_S = 0.01


@dataclass(frozen=True)
class Aligned:
    """What the waits for ticks found: joules at both edges (the end corrected for the gap), that correction, the
    stamps' sd in s, the correction's sd, and the mean power right after the work."""

    start_j: float
    end_j: float
    gap_j: float
    stamp_sd_s: float
    gap_sd_j: float
    after_w: float


@dataclass(frozen=True)
class Evaluation:
    """Useful joules of one source with their standard uncertainty; NaN with a reason where there are none. `short`
    marks a window that was only too short for this source, so that another may try."""

    joules: float
    paused_joules: float
    sd: float
    source: str
    grade: str
    reason: str = ""
    short: bool = False
    unmeasured_s: float = 0.0
    alias: bool = False


def invalid(source: str, reason: str, *, short: bool = False) -> Evaluation:
    """No joules, and why."""
    return Evaluation(math.nan, math.nan, math.nan, source, "X", reason, short)


def _crosses(spans: list[tuple[int, int]], span: Span) -> tuple[int, int] | None:
    return next(((a, b) for a, b in spans if a <= span.end_ns and b >= span.start_ns), None)


def outage(recorder: GpuRecorder, span: Span) -> str:
    """Why nothing measured on this GPU in this window can be trusted; empty if nothing happened."""
    if recorder.fault:
        return recorder.fault
    lost = _crosses(recorder.lost, span)
    if lost is not None:
        return f"the GPU was lost {max(0.0, (lost[0] - span.start_ns) / 1e9):.2f} s into the window"
    reset = _crosses(recorder.counter.resets, span)
    if reset is not None:
        after_s = max(0.0, (reset[1] - span.start_ns) / 1e9)
        return f"the energy counter was reset {after_s:.2f} s into the window (driver reload or GPU reset)"
    garbage = _crosses(recorder.garbage, span)
    if garbage is not None:
        return f"the energy counter read all ones {(garbage[0] - span.start_ns) / 1e9:.2f} s into the window"
    stale = _crosses(recorder.counter.stale, span)
    if stale is not None:
        return f"the energy counter stood still for {(stale[1] - stale[0]) / 1e9:.2f} s (stale)"
    return ""


def _reads(recorder: GpuRecorder, span: Span) -> int:
    """How many reads of the counter the sampler made in the window."""
    raw, counter = recorder.raw, KINDS.index("counter_mj")
    return sum(kind == counter and span.start_ns <= t <= span.end_ns for t, kind in zip(raw.t, raw.kind, strict=False))


def _spread(recorder: GpuRecorder, span: Span) -> float:
    """Largest minus smallest sampled power in watts around the window: what an edge can be wrong by."""
    inside = recorder.power.between(span.start_ns, span.end_ns)
    watts = recorder.power.w[max(0, inside.start - 1) : inside.stop + 1]
    return max(watts) - min(watts) if len(watts) > 1 else math.nan


def from_counter(recorder: GpuRecorder, span: Span, aligned: Aligned | None) -> Evaluation:
    """Energy by the counter: tick to tick if aligned, else interpolated between ticks."""
    curve, source = recorder.counter, "nvml:counter"
    tick_s = curve.tick_s(span.start_ns, span.end_ns)
    tick_s = DEFAULT_TICK_S if math.isnan(tick_s) else tick_s
    ticks = curve.ticks_between(span.start_ns, span.end_ns)
    seconds = (span.end_ns - span.start_ns) / 1e9
    if ticks < 2 and not (aligned is not None and seconds >= tick_s):
        why = f"a window of {seconds:.3f} s holds {ticks} tick(s) of the energy counter; it needs {2 * tick_s:.2f} s"
        if seconds > 3 * tick_s:
            reads = _reads(recorder, span)
            why = f"only {reads} reads of the energy counter came in {seconds:.2f} s: calls are too slow"
        return invalid(source, why, short=True)
    deaf = max((curve.t[0] - span.start_ns) / 1e9, (span.end_ns - curve.t[-1]) / 1e9)
    if deaf > 0.5 + tick_s:
        return invalid(source, f"the energy counter could not be read for {deaf:.2f} s at an edge of the window")
    total = span.total_energy(curve.energy_at) if aligned is None else aligned.end_j - aligned.start_j
    paused = span.paused_energy(curve.energy_at)
    joules = total - paused
    problem = _implausible(joules, span.useful_s, recorder)
    if problem:
        return invalid(source, problem)
    mean_w = joules / span.useful_s
    spread = _spread(recorder, span)
    spread = mean_w if math.isnan(spread) else spread
    marks = [mark for pause in span.paused() for mark in pause] + ([] if aligned else [span.start_ns, span.end_ns])
    parts = [tick_s / math.sqrt(6) * spread * math.sqrt(len(marks) / 2)]
    parts += [curve.stamp_sd_s(mark) * mean_w for mark in marks]
    if aligned is not None:
        parts += [aligned.stamp_sd_s * mean_w, aligned.gap_sd_j]
    sd = math.hypot(*parts)
    grade = _counter_grade(sd / joules, ticks, aligned)
    why = f"its uncertainty is {100 * sd / joules:.1f} %, more than {100 * B_RELATIVE_SD:.0f} %: only {ticks} ticks"
    return Evaluation(joules, paused, sd, source, grade, why if grade == "D" else "")


def _implausible(joules: float, seconds: float, recorder: GpuRecorder) -> str:
    if not joules > 0:
        return f"the energy counter gave {joules:.3f} J for {seconds:.3f} s: a board that runs draws power"
    limit = recorder.identity.get("power_limit_w")
    if limit and joules / seconds > 2 * limit and seconds > 1:
        return f"the energy counter implies {joules / seconds:.0f} W on a board limited to {limit:.0f} W"
    return ""


def _counter_grade(relative_sd: float, ticks: int, aligned: Aligned | None) -> str:
    if aligned is not None:
        return "A" if ticks >= TICKS_FOR_A else "B"
    return "B" if relative_sd <= B_RELATIVE_SD else "D"


def is_aliased(step_s: float | None, period_s: float, seconds: float) -> int:
    """How many distinct phases of the load the sensor sees if that number is at most 4 and stays so over the window;
    else 0.

    A load of period p read every T is seen at the phases T/p modulo 1; T/p close to m/n shows n phases. The drift from
    one reading to the next, |T/p - m/n|, must carry the phase through a whole 1/n within the window to undo that.
    """
    if not step_s or step_s <= 0 or period_s <= 0:
        return 0
    ratio = period_s / step_s
    for phases in range(1, MOST_PHASES + 1):
        drift = abs(ratio * phases - round(ratio * phases)) * (seconds / period_s)
        if round(ratio * phases) > 0 and drift < 1:
            return phases
    return 0


def from_power(recorder: GpuRecorder, span: Span, curve: PowerCurve, step_s: float | None = None) -> Evaluation:
    """Energy by the trapezoid over sampled power (the driver's ring buffer or polling), on measured time stamps."""
    ring = curve is recorder.ring
    source, grade = ("nvml:samples", "C") if ring else (f"nvml:{recorder.power_source}", "D")
    sensor = recorder.sensor
    inside = curve.between(span.start_ns, span.end_ns)
    n, seconds = inside.stop - inside.start, (span.end_ns - span.start_ns) / 1e9
    if not curve.t:
        why = "; ".join(f"{name}: {text}" for name, text in recorder.unsupported.items()) or "no power reading came"
        return invalid(source, why)
    shortest_s = 2 * sensor.period_s
    if n < 2 or seconds < shortest_s:
        return invalid(
            source,
            f"a window of {seconds:.3f} s with {n} sample(s) of power: it needs {shortest_s:.2f} s or more"
            if seconds < 3 * shortest_s
            else f"only {n} sample(s) of power came in {seconds:.2f} s: calls are too slow",
            short=True,
        )
    times = curve.t[inside]
    steps = sorted(b - a for a, b in itertools.pairwise(times))
    period_ns = steps[len(steps) // 2]
    unmeasured_s = sum(g for a, b in span.segments() for g in curve.gaps(a, b, GAP_PERIODS * period_ns)) / 1e9
    if unmeasured_s > MAX_UNMEASURED * span.useful_s:
        why = f"no power reading for {unmeasured_s:.2f} s of {span.useful_s:.2f} s"
        return replace(invalid(source, why), unmeasured_s=unmeasured_s)
    paused = span.paused_energy(curve.energy_at)
    joules = span.total_energy(curve.energy_at) - paused
    watts = curve.w[inside]
    spread = max(watts) - min(watts)
    phases = is_aliased(step_s, sensor.period_s, seconds) if sensor.coverage < 0.9 else 0
    parts = [
        spread * (sensor.window_s + sensor.period_s) / 2 * math.sqrt(1 + len(span.paused())),
        unmeasured_s * spread / math.sqrt(12),
        _sampling_sd(curve, inside, sensor.period_s * 1e9 / max(period_ns, 1)),
        _blind_sd(recorder, joules, span.useful_s, phases, step_s),
        _coverage_sd(list(watts), sensor.coverage, seconds / sensor.period_s) * span.useful_s,
    ]
    return Evaluation(joules, paused, math.hypot(*parts), source, grade, "", False, unmeasured_s, phases > 0)


def _sampling_sd(curve: PowerCurve, inside: slice, per_period: float) -> float:
    """Half the range of the integral over phase-shifted subsets of the samples (every 2nd sensor period)."""
    stride = max(2, round(2 * per_period))
    n = inside.stop - inside.start
    if n < 3 * stride:
        return 0.0
    sums: list[float] = []
    for phase in range(stride):
        watts = curve.w[inside.start + phase : inside.stop : stride]
        sums.append(math.fsum(watts) / len(watts))
    seconds = (curve.t[inside.stop - 1] - curve.t[inside.start]) / 1e9
    return float(0.5 * (max(sums) - min(sums)) * seconds)


def _coverage_sd(watts: list[float], coverage: float, readings: float) -> float:
    """Watts of uncertainty from the share of time that the sensor does not see, for a load whose phase is random to
    it."""
    mean = math.fsum(watts) / len(watts)
    variance = math.fsum((w - mean) ** 2 for w in watts) / len(watts)
    return math.sqrt(variance * (1 - coverage) / max(readings, 1.0))


def _blind_sd(recorder: GpuRecorder, joules: float, seconds: float, phases: int, step_s: float | None) -> float:
    """Joules of uncertainty from phases of a periodic load that the sensor never sees: they can lie anywhere from 0 W
    to the limit."""
    if not phases or not step_s:
        return 0.0
    unseen = 1 - min(1.0, phases * recorder.sensor.window_s / step_s)
    mean_w = joules / seconds
    limit = recorder.identity.get("power_limit_w") or 2 * mean_w
    return unseen * max(limit - mean_w, mean_w) / math.sqrt(3) * seconds


def headline(
    recorder: GpuRecorder, span: Span, aligned: Aligned | None, step_s: float | None
) -> tuple[Evaluation, Evaluation | None]:
    """(the energy of a GPU by its best source, the cross-check by another). Falls down the ladder of trust, never into
    a guess."""
    trouble = outage(recorder, span)
    polled = from_power(recorder, span, recorder.power, step_s)
    if not recorder.has_counter:
        ringed = from_power(recorder, span, recorder.ring, step_s) if recorder.ring.t else None
        best = ringed if ringed is not None and not ringed.reason else polled
        other = polled if best is ringed else ringed
        return (invalid(best.source, trouble) if trouble else _why_polled(best, recorder)), other
    if trouble:
        return invalid("nvml:counter", trouble), polled
    counted = from_counter(recorder, span, aligned)
    if counted.short and not polled.reason:
        return replace(polled, grade="D", reason=counted.reason), None
    if counted.grade == "X":
        return counted, polled
    return _cross_checked(counted, polled, span), polled


def _why_polled(best: Evaluation, recorder: GpuRecorder) -> Evaluation:
    """The estimate; polled power says why nothing better was used."""
    if best.grade != "D":
        return best
    refused = recorder.unsupported
    better = [f"{name}: {refused[name]}" for name in ("counter", "samples") if name in refused]
    return replace(best, reason="polled power, for there is nothing better here: " + "; ".join(better))


def _cross_checked(counted: Evaluation, polled: Evaluation, span: Span) -> Evaluation:
    if polled.reason:
        return replace(counted, grade="B" if counted.grade == "A" else counted.grade)
    relative = abs(polled.joules - counted.joules) / counted.joules
    if relative > AGREE and span.useful_s >= AGREE_FROM_S:
        why = f"counter and sampled power differ by {100 * relative:.1f} %"
        return replace(counted, grade="D", reason="; ".join(filter(None, (why, counted.reason))))
    if relative > AGREE and counted.grade == "A":
        return replace(counted, grade="B")
    return counted


def host_package(recorder: HostRecorder, span: Span) -> Evaluation:
    """The host's package energy by RAPL, else by the estimate."""
    curve = recorder.package
    joules = span.total_energy(curve.energy_at)
    paused = span.paused_energy(curve.energy_at)
    useful = joules - paused
    if recorder.reason or math.isnan(useful):
        return invalid(recorder.source, recorder.reason or "no reading of the host came")
    if not recorder.rapl.package:
        return (
            Evaluation(useful, paused, 0.4 * useful, recorder.source, "E")
            if useful > 0
            else invalid(recorder.source, "no CPU time was used")
        )
    if span.useful_s < RAPL_SHORTEST_S or not useful > 0:
        return invalid(
            recorder.source,
            f"a window of {span.useful_s:.4f} s is too short for RAPL; it needs {RAPL_SHORTEST_S} s or more",
        )
    mean_w = useful / span.useful_s
    return Evaluation(
        useful, paused, RAPL_TICK_S * mean_w * math.sqrt(2 + 2 * len(span.paused())), recorder.source, "R"
    )


def host_dram(recorder: HostRecorder, span: Span) -> Evaluation:
    """The memory's energy by RAPL; NaN with the reason where there is none."""
    if not recorder.rapl.dram:
        return invalid("", recorder.rapl.dram_reason or recorder.rapl.reason)
    joules = span.total_energy(recorder.dram.energy_at) - span.paused_energy(recorder.dram.energy_at)
    if math.isnan(joules):
        return invalid(recorder.rapl.dram_source, "the memory zone could not be read")
    return Evaluation(joules, math.nan, 0.0, recorder.rapl.dram_source, "R")
