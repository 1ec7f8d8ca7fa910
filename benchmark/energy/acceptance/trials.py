"""The meter put to the test on the board at hand: what each check does and what it says. Torch-free: loads are given.

A limit fails only where the measured value exceeds it by more than its own uncertainty; a value beyond the limit that
the windows cannot resolve is INFO, with both numbers. `python scripts/gpu_check.py` runs it on a GPU.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import Device
from benchmark.energy.windows.session import Options
from benchmark.energy.windows.tracer import EnergyTracer
from benchmark.intervals import mean_ci95, paired_ratio_ci95, t975

Word = Literal["PASS", "FAIL", "SKIPPED", "INFO"]
AGREE, DISAGREE = 0.02, 0.05
"""Counter against trapezoid: as good as it should be, and so bad that no counter is to be believed (grade A)."""
LINEAR, ADDITIVE, OVERHEAD, REPEATABLE, OVER_LIMIT = 0.01, 0.005, 0.01, 0.01, 1.05
SHARES = (0.2, 1.0, 2.0, 0.6, 2.0, 1.0, 0.4)
"""Sizes of the linearity check, as shares of N: N and 2N lie around one middle, so that a steady drift cancels."""


class Load(Protocol):
    """Work for the device in equal steps of some milliseconds."""

    name: str

    def work(self, steps: int) -> None:
        """Do that many steps and wait until they are done."""


@dataclass(frozen=True)
class Durations:
    """Seconds of each part. As they stand, with the probe, under six minutes."""

    counter_s: float = 20.0
    linear_s: float = 7.0
    stage_s: float = 2.0
    overhead_s: float = 1.0
    alias_s: float = 8.0
    repeat_s: float = 6.0
    idle_s: float = 5.0
    pairs: int = 10
    windows: int = 10


@dataclass(frozen=True)
class Verdict:
    """One line: what was checked, how it came out, in words and in numbers. Only blocking failures fail the whole."""

    check: str
    word: Word
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    blocking: bool = True


@dataclass
class Trial:
    """A device under test: its tracer, its loads, and every reading taken so far."""

    device: Device
    loads: Mapping[str, Load]
    durations: Durations
    facts: Mapping[str, Any]
    wait: Callable[[], None]
    readings: list[tuple[str, Reading]] = field(default_factory=list)

    def tracer(self, period_s: float = 0.05) -> EnergyTracer:
        """A tracer that knows what was probed."""
        options = Options(period_s=period_s, probed={self.device.uuid: self.facts})
        return EnergyTracer(self.device, synchronize=self.wait, options=options)

    def steps(self, load: Load, seconds: float) -> int:
        """How many steps of a load last so long, by a pilot."""
        steps = 1
        while True:
            began = time.monotonic()
            load.work(steps)
            lasted = time.monotonic() - began
            if lasted > min(0.3, 0.3 * seconds):
                return max(1, round(steps * seconds / lasted))
            steps *= 2

    def measure(self, load: Load, steps: int, *, align: bool = True) -> Reading:
        """One window around so many steps."""
        with self.tracer() as tracer, tracer.window(load.name, align=align) as window:
            load.work(steps)
        self.readings.append((load.name, window.reading))
        return window.reading


def fault(readings: Sequence[Reading]) -> str:
    """Why one of the readings has no energy, or none that its counter vouches for; empty if all is well."""
    return next((r.reason for r in readings if math.isnan(r.joules) or r.provenance.get("counter_doubt")), "")


def judge(value: float, ci: float, limit: float) -> Word:
    """PASS within the limit, FAIL beyond it by more than `ci`, INFO where that cannot be told."""
    if math.isnan(value):
        return "FAIL"
    return "PASS" if abs(value) <= limit else "FAIL" if abs(value) - ci > limit else "INFO"


def relative_ci(*readings: Reading) -> float:
    """The readings' relative 95 % intervals, in quadrature."""
    return math.hypot(*(r.ci95_joules / r.joules for r in readings))


def counter(trial: Trial) -> Iterator[Verdict]:
    """The counter against the trapezoid over sampled power, on unlike loads."""
    for name in ("matmul", "conv training", "memory copy", "idle"):
        check, load = f"counter against trapezoid, {name}", trial.loads[name]
        steps = trial.steps(load, trial.durations.counter_s)
        load.work(max(1, steps // 10))
        r = trial.measure(load, steps, align=False)
        numbers = {"joules": r.joules, "trapezoid_joules": r.cross_joules, "relative": r.cross_rel_diff}
        if why := fault([r]):
            yield Verdict(check, "FAIL", why, numbers)
        elif r.source != "nvml:counter":
            yield Verdict(check, "SKIPPED", f"no energy counter: {r.source}, grade {r.grade}", numbers)
        elif math.isnan(r.cross_rel_diff):
            yield Verdict(check, "SKIPPED", f"no sampled power beside it: {r.missing.get('cross_joules', '')}", numbers)
        else:
            blur = 2 * r.max_gap_s / r.seconds  # what the trapezoid cannot know of its two edges
            word = judge(r.cross_rel_diff, relative_ci(r) + blur, DISAGREE)
            word = word if word == "FAIL" or abs(r.cross_rel_diff) <= AGREE else "INFO"
            text = f"{r.cross_rel_diff:+.2%} of {r.joules:.0f} J in {r.seconds:.1f} s (2 % is good, 5 % blocks grade A)"
            yield Verdict(check, word, text, numbers)


def linearity(trial: Trial) -> Iterator[Verdict]:
    """Twice the steps, twice the energy; and no energy for no steps.

    On a warm board, N and 2N in turns about one middle: a steady drift (a board that goes on warming leaks more) then
    touches both alike. What repetitions of one size differ by widens the interval.
    """
    load = trial.loads["matmul"]
    full = trial.steps(load, trial.durations.linear_s)
    load.work(full)
    sizes = [max(1, round(full * share)) for share in SHARES]
    readings = [trial.measure(load, size) for size in sizes]
    if why := fault(readings):
        yield Verdict("linearity", "FAIL", why)
        return
    joules = [r.joules for r in readings]
    once, twice = ([r for r, share in zip(readings, SHARES, strict=True) if share == size] for size in (1.0, 2.0))
    ratio = _mean(twice) / _mean(once) * sizes[SHARES.index(1.0)] / sizes[SHARES.index(2.0)] - 1
    ci = math.hypot(*(relative_ci(*each) / len(each) for each in (once, twice)), _spread(once), _spread(twice))
    text = f"E(2N)/E(N) is {2 * (1 + ratio):.4f} ± {2 * ci:.4f} (2 within 1 %)"
    yield Verdict("linearity", judge(ratio, ci, LINEAR), text, {"steps": sizes, "joules": joules, "relative": ratio})
    intercept, half_width = _intercept(sizes, joules)
    whole = _mean(once)
    text = f"{intercept:.2f} ± {half_width:.2f} J at no steps (0 within 1 % of {whole:.0f} J or its interval)"
    numbers = {"joules": intercept, "ci95_joules": half_width}
    yield Verdict("intercept", judge(intercept / whole, half_width / whole, LINEAR), text, numbers, blocking=False)


def _mean(readings: Sequence[Reading]) -> float:
    return statistics.fmean(r.joules for r in readings)


def _spread(readings: Sequence[Reading]) -> float:
    """Half of what repetitions of the same work differ by, relative."""
    joules = [r.joules for r in readings]
    return (max(joules) - min(joules)) / 2 / statistics.fmean(joules)


def _intercept(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(intercept of a straight line, half-width of its 95 % interval)."""
    slope, at_zero = statistics.linear_regression(x, y)
    middle = statistics.fmean(x)
    spread = sum((value - middle) ** 2 for value in x)
    left = sum((b - at_zero - slope * a) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 2)
    return at_zero, t975(len(x) - 2) * math.sqrt(left * (1 / len(x) + middle**2 / spread))


def additivity(trial: Trial) -> Iterator[Verdict]:
    """Six stages inside one window cost what the window costs."""
    load = trial.loads["conv training"]
    steps = trial.steps(load, trial.durations.stage_s)
    with trial.tracer() as tracer, tracer.window("six stages") as outer:
        inner = []
        for number in range(6):
            with tracer.window(f"stage {number}") as window:
                load.work(steps)
            inner.append(window)
    readings = [window.reading for window in inner]
    if why := fault([outer.reading, *readings]):
        yield Verdict("additivity", "FAIL", why)
        return
    parts = math.fsum(r.joules for r in readings)
    apart = parts / outer.reading.joules - 1
    text = f"six nested stages make {parts:.1f} J of {outer.reading.joules:.1f} J: {apart:+.3%} (within 0.5 %)"
    between = 1 - math.fsum(r.seconds for r in readings) / outer.reading.seconds  # opening and closing takes time
    # the parts' own intervals add up: interpolating between ticks errs in the same direction at every edge of a load
    unsure = relative_ci(outer.reading) + math.fsum(r.ci95_joules for r in readings) / outer.reading.joules
    word = judge(apart, unsure + between, ADDITIVE)
    yield Verdict("additivity", word, text, {"parts": [r.joules for r in readings], "whole": outer.reading.joules})


def overhead(trial: Trial) -> Iterator[Verdict]:
    """The same steps with the tracer on and off, in turns."""
    load = trial.loads["conv training"]
    steps = trial.steps(load, trial.durations.overhead_s)
    for period_s, limit in ((0.05, OVERHEAD), (0.01, math.inf)):
        on: list[float] = []
        off: list[float] = []
        for number in range(trial.durations.pairs):
            for turn in ((0, 1), (1, 0))[number % 2]:
                (on if turn else off).append(_lasted(trial, load, steps, period_s if turn else 0.0))
        ratio = paired_ratio_ci95(on, off)
        more, ci = ratio.mean - 1, ratio.half_width
        told = f"{more:+.2%} ± {ci:.2%} of a step with the sampler at {1000 * period_s:.0f} ms"
        word: Word = "INFO" if math.isinf(limit) else judge(max(0.0, more), ci, limit)
        limits = "" if math.isinf(limit) else " (below 1 %)"
        yield Verdict("overhead", word, told + limits, {"on_s": on, "off_s": off, "period_s": period_s})


def _lasted(trial: Trial, load: Load, steps: int, period_s: float) -> float:
    def timed() -> float:
        began = time.monotonic()
        load.work(steps)
        return time.monotonic() - began

    if not period_s:
        return timed()
    with trial.tracer(period_s) as tracer, tracer.window("overhead"):
        return timed()


def repeatability(trial: Trial) -> Iterator[Verdict]:
    """The same work again and again costs the same."""
    load = trial.loads["matmul"]
    steps = trial.steps(load, trial.durations.repeat_s)
    readings = [trial.measure(load, steps) for _ in range(trial.durations.windows)]
    if why := fault(readings):
        yield Verdict("repeatability", "FAIL", why)
        return
    joules = [r.joules for r in readings]
    cv = statistics.stdev(joules) / statistics.fmean(joules)
    # the meter's own share of the scatter, and what so few windows can tell of a standard deviation
    own = max(relative_ci(r) for r in readings) / 1.96
    ci = cv * 1.96 / math.sqrt(2 * (len(joules) - 1)) + own
    interval = mean_ci95(joules)
    text = f"{len(joules)} windows: {interval.mean:.2f} ± {interval.half_width:.2f} J, CV {cv:.2%} (below 1 %)"
    yield Verdict("repeatability", judge(cv, ci, REPEATABLE), text, {"joules": joules, "cv": cv})
