"""From readings on a timeline to joules with an uncertainty, a grade and a reason. Pure arithmetic."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from benchmark.energy.timeline.curves import NEWEST, PowerCurve
from benchmark.energy.timeline.gpu_recorder import GpuRecorder
from benchmark.energy.timeline.host_recorder import HostRecorder, Rung
from benchmark.energy.timeline.marks import Aligned
from benchmark.energy.timeline.raw import KINDS
from benchmark.energy.timeline.span import Span

AGREE = 0.05
"""Counter and sampled power must agree this well on windows of `AGREE_FROM_S` or more, and on shorter ones up to what
their uncertainties explain."""
AGREE_FROM_S = 5.0
TICKS_FOR_A = 100
MAX_UNMEASURED = 0.05
GAP_PERIODS = 3
DEFAULT_TICK_S = 0.1
MOST_PHASES = 4
B_RELATIVE_SD = 0.01
"""An interpolated counter whose standard uncertainty is above this share of its energy is no grade B."""
STILL_TICKS = 10
"""A window shorter than so many updates of a meter is too short for it."""
STILL_S = 0.5
"""A meter of a running machine that counts nothing for so long does not count at all."""


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
    still: bool = False
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
    return ""


def mistrusted(recorder: GpuRecorder, span: Span) -> str:
    """Why the counter alone cannot be trusted in this window, while the power sensor may be; empty if it can."""
    stale = _crosses(recorder.counter.stale, span)
    if stale is not None:
        return f"the energy counter stood still for {(stale[1] - stale[0]) / 1e9:.2f} s (stale)"
    jump = _crosses(recorder.counter.jumps, span)
    if jump is not None:
        after_s = max(0.0, (jump[1] - span.start_ns) / 1e9)
        most = f"more than the {recorder.counter.most_w:.0f} W that this board can draw"
        return f"the energy counter jumped {after_s:.2f} s into the window, by {most}"
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
    # beyond the first and last tick the line goes on with the last slope: good for a tick or so, and no longer
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
    # Between two ticks the energy is taken to grow evenly. In truth the power may have changed anywhere between them,
    # by the whole spread: a uniform distribution over that time, whose standard deviation is its width / sqrt(12).
    parts = [max(tick_s, curve.bracket_s(mark)) / math.sqrt(12) * spread for mark in marks]
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
        why = "; ".join(f"{name}: {text}" for name, text in recorder.refusals.items()) or "no power reading came"
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
    steps = sorted(b - a for a, b in itertools.pairwise(curve.t[inside][-NEWEST:]))
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
    return Evaluation(joules, paused, math.hypot(*parts), source, grade, unmeasured_s=unmeasured_s, alias=phases > 0)


def _sampling_sd(curve: PowerCurve, inside: slice, per_period: float) -> float:
    """Half the range of the integral over phase-shifted subsets of the samples (every 2nd sensor period)."""
    # the sensor renews once a period, so every 2nd period is the coarsest sampling that still sees the load; if its
    # shifted copies give different integrals, ours depends on the phase in which the sampler happened to start
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
    # the unseen share of each period holds power of the same variance; over n periods its mean errs by sd / sqrt(n)
    mean = math.fsum(watts) / len(watts)
    variance = math.fsum((w - mean) ** 2 for w in watts) / len(watts)
    return math.sqrt(variance * (1 - coverage) / max(readings, 1.0))


def _blind_sd(recorder: GpuRecorder, joules: float, seconds: float, phases: int, step_s: float | None) -> float:
    """Joules of uncertainty from phases of a periodic load that the sensor never sees: they can lie anywhere from 0 W
    to the limit."""
    if not phases or not step_s:
        return 0.0
    # what is never seen lies anywhere from 0 W to the limit: a uniform distribution whose half width is the larger
    # distance from the mean, and whose standard deviation is that / sqrt(3)
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
    if not recorder.counts:
        ringed = from_power(recorder, span, recorder.ring, step_s) if recorder.ring.t else None
        best = ringed if ringed is not None and not ringed.reason else polled
        other = polled if best is ringed else ringed
        return (invalid(best.source, trouble) if trouble else _why_polled(best, recorder)), other
    if trouble:
        return invalid("nvml:counter", trouble), polled
    doubt = mistrusted(recorder, span)
    counted = invalid("nvml:counter", doubt) if doubt else from_counter(recorder, span, aligned)
    if (counted.short or doubt) and not polled.reason:
        return replace(polled, grade="D", reason=counted.reason), None
    if counted.grade == "X":
        return counted, polled
    return _cross_checked(counted, polled, span), polled


def _why_polled(best: Evaluation, recorder: GpuRecorder) -> Evaluation:
    """The estimate; polled power says why nothing better was used."""
    if best.grade != "D":
        return best
    refused = recorder.refusals
    better = [f"{name}: {refused[name]}" for name in ("counter", "samples") if name in refused]
    return replace(best, reason="polled power, because there is nothing better here: " + "; ".join(better))


def _cross_checked(counted: Evaluation, polled: Evaluation, span: Span) -> Evaluation:
    if polled.reason:
        return replace(counted, grade="B" if counted.grade == "A" else counted.grade)
    difference = abs(polled.joules - counted.joules)
    relative = difference / counted.joules
    # short windows are polled coarsely: only what both uncertainties cannot explain counts against the counter
    explained = 2 * math.hypot(polled.sd, counted.sd)
    long = span.useful_s >= AGREE_FROM_S
    if relative > AGREE and (long or difference > AGREE * counted.joules + explained):
        why = f"counter and sampled power differ by {100 * relative:.1f} %"
        return replace(counted, grade="D", reason="; ".join(filter(None, (why, counted.reason))))
    if relative > AGREE and counted.grade == "A":
        return replace(counted, grade="B")
    return counted


def host_package(recorder: HostRecorder, span: Span) -> Evaluation:
    """The host's energy by its first meter. One that does not move at all falls to the estimate below it, by name."""
    rungs = recorder.rungs
    found = _by_meter(rungs[0], span, recorder.fault)
    for below in rungs[1:]:
        if not found.still:
            break
        lower = _by_meter(below, span, recorder.fault)
        found = lower if lower.reason else replace(lower, reason=found.reason)
    return found


def _by_meter(rung: Rung, span: Span, fault: str) -> Evaluation:
    """Energy by a meter that counts joules itself."""
    meter, curve = rung.meter, rung.curve
    total, paused = span.total_energy(curve.energy_at), span.paused_energy(curve.energy_at)
    useful = total - paused
    if fault or rung.fault or math.isnan(useful):
        return invalid(meter.source, fault or rung.fault or f"no reading of {meter.source} came")
    if meter.grade == "E" and not useful > 0:
        return invalid(meter.source, "no CPU time was used")
    seconds = (span.end_ns - span.start_ns) / 1e9
    shortest_s = STILL_TICKS * meter.tick_s
    still_s = curve.still_s(span.start_ns, span.end_ns) if meter.grade != "E" else 0.0
    if still_s >= max(STILL_S, STILL_TICKS * meter.tick_s):
        why = f"{meter.source} stood still for {still_s:.2f} s of {seconds:.2f} s"
        return replace(invalid(meter.source, why), still=True)
    if meter.grade != "E" and (span.useful_s < shortest_s or not useful > 0):
        short = f"a window of {span.useful_s:.4f} s is too short for {meter.source}; it needs {shortest_s:g} s or more"
        return invalid(meter.source, short)
    edges_sd = meter.tick_s * useful / span.useful_s * math.sqrt(2 + 2 * len(span.paused()))
    sd = meter.relative_sd * useful if meter.relative_sd else edges_sd
    return Evaluation(useful, paused, sd, meter.source, meter.grade)


def host_dram(recorder: HostRecorder, span: Span) -> Evaluation:
    """The memory's energy by RAPL; NaN with the reason where there is none."""
    if not recorder.rapl.dram:
        return invalid("", recorder.rapl.dram_reason or recorder.rapl.reason)
    joules = span.total_energy(recorder.dram.energy_at) - span.paused_energy(recorder.dram.energy_at)
    if math.isnan(joules):
        return invalid(recorder.rapl.dram_source, "the memory zone could not be read")
    return Evaluation(joules, math.nan, 0.0, recorder.rapl.dram_source, "R")
