"""Integrals against closed forms and a fine Riemann sum: points 1, 4, 5, 24, 25, 26."""

from __future__ import annotations

import itertools
import math

import pytest
from energy_fakes import START_NS, Curve, Decay, Sine, Wave, constant
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.energy.timeline.curves import CounterCurve, PowerCurve, TotalCurve
from benchmark.energy.timeline.span import Span

NO_COUNTER = ("counter", "samples", "field191")


def sampled(curve, end: float, dt: float) -> PowerCurve:
    power = PowerCurve()
    for k in range(round(end / dt) + 1):
        power.add(round(k * dt * 1e9), curve.power(k * dt))
    return power


def test_piecewise_linear_is_exact_when_its_knots_are_sampled():
    curve = Curve([(0, 60), (1, 60), (2, 300), (5, 300), (7, 90)])
    power = sampled(curve, 8, 0.05)
    for a, b in [(0, 8), (0.013, 7.777), (1.5, 1.51), (2, 5)]:
        got = power.energy_at(round(b * 1e9)) - power.energy_at(round(a * 1e9))
        # between samples the line is the curve, so even edges between samples are exact
        assert got == pytest.approx(curve.energy(b) - curve.energy(a), rel=1e-9)


@pytest.mark.parametrize(
    ("curve", "bound"),
    [(Sine(200, 100, 2.0), 0.01), (Decay(60, 300, 0.7), 0.02), (Wave(60, 300, 1.0), 1.5e-2)],
    ids=["sine", "exponential", "square"],
)
def test_smooth_curves_converge_with_the_square_of_the_period(curve, bound):
    true = curve.energy(9.9) - curve.energy(0.3)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        power = sampled(curve, 10, dt)
        errors.append(abs(power.energy_at(9_900_000_000) - power.energy_at(300_000_000) - true) / true)
    assert errors[0] < bound
    if not isinstance(curve, Wave):  # a jump converges with the period, a smooth curve with its square
        assert errors[2] < errors[0] / 10


def test_edges_are_held_outside_the_samples():
    power = PowerCurve()
    power.add(1_000_000_000, 100.0)
    power.add(2_000_000_000, 200.0)
    assert power.energy_at(3_000_000_000) - power.energy_at(0) == pytest.approx(100 + 150 + 200)


def test_constant_power_is_measured_for_its_whole_length(traced, clock):
    """A tracer that drops repeated samples loses a constant load: here every sample repeats the last."""
    tracer, _ = traced(constant(60.0), unsupported=NO_COUNTER)
    with tracer.window("flat") as window:
        clock.sleep(2.0)
    assert window.reading.joules == pytest.approx(120.0, rel=1e-9)
    assert window.reading.n_samples >= 40
    assert window.reading.grade == "D"


def test_no_sample_at_all_is_nan_not_zero(traced, clock):
    tracer, _ = traced(constant(60.0), deaf=lambda t: True)
    with tracer.window("deaf") as window:
        clock.sleep(2.0)
    assert math.isnan(window.reading.joules)
    assert window.reading.grade == "X"
    assert window.reading.reason


@pytest.mark.parametrize("survivors", [1, 2])
def test_one_or_two_samples_do_not_make_a_measurement(traced, clock, survivors):
    stamps: list[float] = []

    def deaf(t: float) -> bool:
        if len(stamps) < survivors and (not stamps or t - stamps[-1] > 0.04):
            stamps.append(t)
        return t not in stamps

    tracer, _ = traced(constant(60.0), unsupported=NO_COUNTER, deaf=deaf)
    with tracer.window("few") as window:
        clock.sleep(2.0)
    assert len(stamps) == survivors
    assert math.isnan(window.reading.joules)
    assert window.reading.reason


def test_a_window_too_short_names_the_length_it_needs(traced, clock):
    tracer, _ = traced(constant(60.0))
    clock.sleep(0.03)
    with tracer.window("blink") as window:
        clock.sleep(0.02)
    assert math.isnan(window.reading.joules)
    assert "needs 0.20 s" in window.reading.reason


def make_counter(curve, end: float, tick: float) -> CounterCurve:
    counter = CounterCurve()
    for k in range(round(end / 0.01) + 1):
        t = k * 0.01
        counter.add(round(t * 1e9), 5000 + curve.energy(math.floor(t / tick + 1e-9) * tick))
    return counter


@pytest.mark.parametrize("kind", ["power", "counter", "total"])
def test_energies_of_neighbours_add_up(kind):
    wave = Wave(60, 300, 0.37)
    if kind == "power":
        energy_at = sampled(wave, 10, 0.05).energy_at
    elif kind == "counter":
        energy_at = make_counter(wave, 10, 0.1).energy_at
    else:
        total = TotalCurve()
        for k in range(11):
            total.add(k * 1_000_000_000, wave.energy(k))
        energy_at = total.energy_at
    a, b, c = 1_234_567_891, 4_444_444_444, 8_765_432_109
    whole = Span(a, c).total_energy(energy_at)
    assert whole == pytest.approx(Span(a, b).total_energy(energy_at) + Span(b, c).total_energy(energy_at), rel=1e-9)
    # a pause takes off exactly what a window over it would have measured
    assert whole - Span(a, c, ((b, b + 10**9),)).paused_energy(energy_at) == pytest.approx(
        Span(a, b).total_energy(energy_at) + Span(b + 10**9, c).total_energy(energy_at), rel=1e-9
    )


def test_twice_the_work_is_twice_the_energy(traced, clock):
    joules = []
    for repeats in (1, 2):
        tracer, _ = traced(Wave(100, 300, 0.1))
        with tracer.window("n", align=True) as window:
            clock.sleep(10.0 * repeats)
        joules.append(window.reading.joules)
    assert joules[1] / joules[0] == pytest.approx(2.0, rel=1e-3)


knot_lists = st.lists(
    st.tuples(st.floats(0.05, 3.0), st.floats(20, 700)),
    min_size=2,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(knots=knot_lists, share=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_any_curve_agrees_with_a_fine_riemann_sum(knots, share):
    t, points = 0.0, []
    for dt, watts in knots:
        points.append((t, watts))
        t += dt
    curve, end = Curve(points), t
    a, b = sorted((share[0] * end, share[1] * end))
    power = sampled(curve, end + 0.1, 0.01)
    n = 4000
    riemann = sum(curve.power(a + (k + 0.5) * (b - a) / n) for k in range(n)) * (b - a) / n
    got = power.energy_at(round(b * 1e9)) - power.energy_at(round(a * 1e9))
    # a knot between two samples bends the line by at most the change of slope over one period
    bend = sum(abs(q - p) for (_, p), (_, q) in itertools.pairwise(points)) * 0.01 / 0.05 * 0.01
    assert abs(got - riemann) <= bend + 1e-6 + 1e-4 * abs(riemann)


def test_the_fake_starts_at_its_origin(clock):
    assert clock.now_ns() == START_NS
