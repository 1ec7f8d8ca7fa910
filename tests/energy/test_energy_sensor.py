"""Sampled power: aliasing, gaps, zero readings, and the paper's own arithmetic (points 3, 10, 11, 20)."""

from __future__ import annotations

import math
import random

import pytest
from energy_fakes import START_NS, Wave, constant, step

from benchmark.energy.judge.evaluate import is_aliased

NO_COUNTER = ("counter", "samples", "field191")


@pytest.mark.parametrize("ratio", [1.0, 2 / 3, 4 / 3])
@pytest.mark.parametrize("shift", [0.0, 0.013, 0.031, 0.062, 0.081])
def test_a_load_that_beats_with_the_sensor_is_flagged_and_its_error_is_inside_the_interval(traced, clock, ratio, shift):
    wave = Wave(60, 600, 0.1 * ratio)
    tracer, _ = traced(wave, unsupported=NO_COUNTER)
    clock.sleep(2.0 + shift)
    with tracer.window("w", step_period_s=0.1 * ratio) as window:
        begin = clock.t
        clock.sleep(8.0)
    reading = window.reading
    true = wave.energy(clock.t) - wave.energy(begin)
    assert reading.provenance["alias_flag"] is True
    assert abs(reading.joules - true) <= reading.ci95_joules


def test_aliasing_is_a_real_danger(traced, clock):
    """The same load without the flag's interval would be off by far more than any sampling error."""
    wave = Wave(60, 600, 0.1)
    tracer, _ = traced(wave, unsupported=NO_COUNTER)
    with tracer.window("w") as window:
        clock.sleep(8.0)
    assert abs(window.reading.joules / wave.energy(8.0) - 1) > 0.3


def test_the_counter_is_immune_to_aliasing(traced, clock):
    wave = Wave(60, 600, 0.1)
    tracer, _ = traced(wave)
    with tracer.window("w", align=True, step_period_s=0.1) as window:
        clock.sleep(8.0)
    start, end = ((t - START_NS) / 1e9 for t in (window.span().start_ns, window.span().end_ns))
    assert window.reading.joules == pytest.approx(wave.energy(end) - wave.energy(start), rel=0.01)
    assert window.reading.grade == "D"  # the cross-check fails loudly instead of passing by luck
    assert "differ" in window.reading.reason


@pytest.mark.parametrize(
    ("step_s", "phases"),
    [(0.1, 1), (0.05, 1), (0.2, 2), (0.4, 4), (0.0731, 0), (0.013, 0), (None, 0), (0.10001, 1), (30.0, 0)],
)
def test_which_step_periods_beat(step_s, phases):
    assert is_aliased(step_s, 0.1, 10.0) == phases


def test_a_sensor_that_sees_everything_is_not_flagged(traced, clock):
    tracer, _ = traced(Wave(60, 600, 0.1), arch="ada", window_s=0.1, unsupported=NO_COUNTER)
    with tracer.window("w", step_period_s=0.1) as window:
        clock.sleep(8.0)
    assert window.reading.provenance["alias_flag"] is False


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_dropped_samples_cost_little(traced, clock, share):
    rng = random.Random(3)
    dropped: dict[float, bool] = {}
    tracer, _ = traced(
        constant(200), unsupported=NO_COUNTER, deaf=lambda t: dropped.setdefault(t, rng.random() < share)
    )
    with tracer.window("w") as window:
        clock.sleep(30.0)
    reading = window.reading
    assert reading.n_samples < 601 - 600 * share * 0.5
    assert reading.joules == pytest.approx(6000, rel=0.001) or "no power reading" in reading.reason
    assert reading.unmeasured_s < 0.5 * 30


def test_a_gap_is_reported_in_full(traced, clock):
    tracer, _ = traced(constant(200), unsupported=NO_COUNTER, deaf=lambda t: 100.0 <= t < 105.0)
    with tracer.window("w") as window:
        clock.sleep(300.0)
    reading = window.reading
    assert reading.unmeasured_s == pytest.approx(5.0, abs=1.1)  # the sampler tries once a second in an outage
    assert reading.coverage == pytest.approx(1 - reading.unmeasured_s / 300)
    assert reading.joules == pytest.approx(60000, rel=1e-6)


def test_a_gap_that_is_too_large_a_share_gives_no_number(traced, clock):
    tracer, _ = traced(constant(200), unsupported=NO_COUNTER, deaf=lambda t: 2.0 <= t < 7.0)
    with tracer.window("w") as window:
        clock.sleep(10.0)
    assert math.isnan(window.reading.joules)
    assert "no power reading for" in window.reading.reason
    assert window.reading.unmeasured_s == pytest.approx(5.0, abs=1.1)


def test_a_gap_inside_a_pause_is_nobodys_gap(traced, clock):
    tracer, _ = traced(constant(200), unsupported=NO_COUNTER, deaf=lambda t: 3.0 <= t < 6.0)
    with tracer.window("w") as window:
        clock.sleep(2.0)
        with window.paused():
            clock.sleep(6.0)
        clock.sleep(2.0)
    assert window.reading.unmeasured_s == 0
    assert window.reading.joules == pytest.approx(800, rel=1e-6)


def test_zero_milliwatts_are_skipped_and_counted(traced, clock):
    zeros: list[float] = []

    def zero(t: float) -> bool:
        if round(t * 20) % 10 == 0:
            zeros.append(t)
        return round(t * 20) % 10 == 0

    tracer, _ = traced(constant(200), unsupported=NO_COUNTER, zero=zero)
    with tracer.window("w") as window:
        clock.sleep(10.0)
    reading = window.reading
    assert reading.joules == pytest.approx(2000, rel=1e-9)
    assert reading.provenance["zero_readings"] == len(zeros) > 15


def test_a_one_second_average_says_that_its_edges_are_blurred(traced, clock):
    """power.usage averages over a second: a short burst is smeared beyond the window, and the interval must cover
    that."""
    tracer, _ = traced(step(60, 300, 5.0, 7.0), unsupported=(*NO_COUNTER, "power.instant"))
    clock.sleep(5.0)
    with tracer.window("w") as window:
        clock.sleep(2.0)
    reading = window.reading
    assert reading.source == "nvml:power.usage"
    assert reading.joules < 0.9 * 600
    assert abs(reading.joules - 600) <= reading.ci95_joules


def test_the_papers_nominal_period_undercounts_by_the_query_time(traced, clock):
    """Sleep 0.1 s, query 0.08 s, book each power for 0.1 s: 0.1 / 0.18 = 0.56 of the energy, Table 4's ratio for the
    P100 (0.55)."""
    tracer, _ = traced(constant(250))
    with tracer.window("w") as window:
        clock.sleep(60.0)
    reading = window.reading
    assert reading.polled_joules == pytest.approx(15000, rel=1e-6)
    assert reading.polled_period_joules / reading.joules == pytest.approx(0.1 / 0.18, rel=0.01)
    assert reading.provenance["polled_period"] == {"period_s": 0.1, "query_s": 0.08}
