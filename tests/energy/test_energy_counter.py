"""The counter's ticks: point 2."""

from __future__ import annotations

import random

import pytest
from energy_fakes import START_NS, Curve, FakeGpu, VirtualClock, constant, device_of

from benchmark.energy import EnergyTracer
from benchmark.energy.timeline.curves import CounterCurve


class Load(Curve):
    """A curve that is written while the test works: low outside the window, high inside."""

    def __init__(self, clock: VirtualClock, low: float, high: float) -> None:
        super().__init__([(0.0, low)])
        self.clock, self.low, self.high = clock, low, high

    def turn(self, watts: float) -> None:
        self.knots += [(self.clock.t, self.knots[-1][1]), (self.clock.t, watts)]


def measure(seconds: float, tick: float, phase: float, *, align: bool):
    """(reading, true joules of the marked window, naive end minus start as a share of the truth)."""
    clock = VirtualClock()
    load = Load(clock, 60.0, 300.0)
    gpu = FakeGpu(clock, load, tick_s=tick, phase_s=0.0, call_s=2e-5)
    tracer = EnergyTracer(device_of(gpu), clock=clock, synchronize=lambda: None)
    clock.sleep(1.0 + phase)
    with tracer.window("w", align=align) as window:
        naive_start = gpu.counter_j(clock.t)
        begin = clock.t
        load.turn(300.0)
        clock.sleep(seconds)
        load.turn(60.0)
        naive = gpu.counter_j(clock.t) - naive_start
        true_work = load.energy(clock.t) - load.energy(begin)
    span = window.span()
    true = load.energy((span.end_ns - START_NS) / 1e9) - load.energy((span.start_ns - START_NS) / 1e9)
    return window.reading, true, naive, true_work


@pytest.mark.parametrize("tick", [0.02, 0.1])
@pytest.mark.parametrize("seconds", [0.2, 0.27, 1.0, 3.3])
def test_aligned_windows_are_within_two_thousandths_at_any_phase(tick, seconds):
    rng = random.Random(f"{tick} {seconds}")
    for _ in range(25):  # 2 ticks x 4 lengths x 25 = 200 phases
        reading, true, _, _ = measure(seconds, tick, rng.random() * tick, align=True)
        assert reading.joules == pytest.approx(true, rel=2e-3)
        assert reading.grade in "AB"
        assert abs(reading.joules - true) <= reading.ci95_joules


def test_an_aligned_window_of_a_hundred_ticks_is_grade_a():
    reading, true, _, _ = measure(10.3, 0.1, 0.037, align=True)
    assert reading.grade == "A"
    assert reading.source == "nvml:counter"
    assert reading.cross_source == "nvml:power.instant"
    assert abs(reading.cross_rel_diff) < 0.05
    assert reading.joules == pytest.approx(true, rel=2e-4)
    assert reading.ci95_joules / reading.joules < 1e-3
    assert reading.provenance["aligned"] is True
    assert reading.provenance["counter_tick_ms"] == pytest.approx(100, abs=1)


def test_naive_differences_scatter_by_a_tick_and_are_biased_low():
    """Why ticks are waited for: end minus start is off by up to T x P, on the average by T/2 x (P_in - P_out)."""
    rng = random.Random(7)
    errors = []
    for _ in range(200):
        _, _, naive, true = measure(1.0, 0.1, rng.random() * 0.1, align=False)
        errors.append(naive - true)
    assert all(-0.1 * 300 - 1e-6 <= e <= 0.1 * 300 + 1e-6 for e in errors)
    assert sum(errors) / len(errors) == pytest.approx(-0.1 / 2 * (300 - 60), rel=0.12)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 12.0])
def test_interpolated_windows_err_less_than_they_say(seconds):
    rng = random.Random(seconds)
    errors = []
    for _ in range(30):
        reading, true, naive, _ = measure(seconds, 0.1, rng.random() * 0.1, align=False)
        assert abs(reading.joules - true) <= reading.ci95_joules
        errors.append(abs(reading.joules - true) / true)
        assert reading.grade == ("B" if seconds > 10 else "D")
        assert naive > 0
    assert sum(errors) / len(errors) < 0.02 / seconds


def test_alignment_waits_at_most_three_ticks(traced, clock):
    tracer, _ = traced(constant(200))
    before = clock.t
    with tracer.window("w", align=True):
        clock.sleep(1.0)
    assert clock.t - before <= 1.0 + 3 * 0.1 + 0.01


def test_a_pause_never_waits_for_a_tick(traced, clock):
    tracer, _ = traced(constant(200))
    with tracer.window("w") as window:
        clock.sleep(1.0)
        before = clock.t
        with window.paused():
            pass
        assert clock.t - before < 1e-3
        clock.sleep(1.0)


def test_a_known_tick_narrows_the_stamps():
    """Reads 50 ms apart bracket a tick of 20 ms no closer than 50 ms, unless the tick is known: then it is at most 20
    ms old."""
    wide, narrow = CounterCurve(), CounterCurve()
    narrow.tick_period_ns = 20_000_000
    for curve in (wide, narrow):
        for k in range(40):
            curve.add(k * 50_000_000, float(k))
    assert wide.half_width[-1] == 25_000_000
    assert narrow.half_width[-1] == 10_000_000


def test_disagreement_with_sampled_power_downgrades(traced, clock):
    """The counter shows 200 W, the sensor 10 % more: above 5 % on a window of 5 s or more the grade falls and says
    why."""
    tracer, gpu = traced(constant(200))
    gpu._sensor = lambda t, window_s: 220.0
    with tracer.window("w", align=True) as window:
        clock.sleep(12.0)
    assert window.reading.grade == "D"
    assert "differ by 10.0 %" in window.reading.reason
    assert window.reading.joules == pytest.approx(2400, rel=1e-3)
    assert window.reading.cross_rel_diff == pytest.approx(0.1, abs=1e-3)


def test_an_impossible_jump_is_no_energy(traced, clock):
    tracer, gpu = traced(constant(200))
    real = gpu.counter_j
    gpu.counter_j = lambda t: real(t) + (1e6 if t > 3 else 0)
    with tracer.window("w") as window:
        clock.sleep(6.0)
    assert (window.reading.grade, window.reading.source) == ("D", "nvml:power.instant")
    assert "jumped 3.0" in window.reading.reason
    assert "1400 W" in window.reading.reason
    assert window.reading.joules == pytest.approx(1200, rel=1e-3)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("jump_j", [50.0, 500.0, 5000.0])
def test_a_jump_in_a_short_window_is_never_called_good(traced, clock, jump_j, align):
    tracer, gpu = traced(constant(200), window_s=0.1)
    real = gpu.counter_j
    gpu.counter_j = lambda t: real(t) + (jump_j if t > 2 else 0)
    clock.sleep(1.0)
    with tracer.window("w", align=align) as window:
        clock.sleep(2.0)
    true = 200 * window.reading.seconds
    assert window.reading.grade == "D"
    assert window.reading.joules == pytest.approx(true, rel=0.01) or "differ by" in window.reading.reason


def test_late_reads_are_no_jumps(traced, clock):
    """A tick that is seen late, and the next one in time, look like the power of a small town."""
    tracer, _ = traced(constant(650), deaf=lambda t: 0.11 < t % 1.0 < 0.35)
    with tracer.window("w") as window:
        clock.sleep(20.0)
    assert window.reading.source == "nvml:counter"
    assert window.reading.joules == pytest.approx(13_000, rel=0.02)
