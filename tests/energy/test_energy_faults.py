"""What breaks under a window becomes NaN with a reason, never a number: points 6 to 9."""

from __future__ import annotations

import math

import pytest
from energy_fakes import constant, step

from benchmark.energy import EnergyError
from benchmark.energy.meters.nvml import NvmlError

OPEN_AT = 1.0


@pytest.mark.parametrize("reset_s", [OPEN_AT + 0.25, OPEN_AT + 3.0, OPEN_AT + 5.98], ids=["start", "middle", "end"])
@pytest.mark.parametrize("align", [False, True])
def test_a_reset_of_the_counter(traced, clock, reset_s, align):
    tracer, _ = traced(constant(200), reset_s=reset_s)
    clock.sleep(OPEN_AT)
    with tracer.window("w", align=align) as window:
        clock.sleep(6.0)
    reading = window.reading
    assert math.isnan(reading.joules)
    assert reading.grade == "X"
    assert "reset" in reading.reason
    assert reading.missing["joules"] == reading.reason


def test_a_reset_while_the_last_ticks_are_waited_for(traced, clock):
    """The window lies before the reset, but the ticks that would close it do not: no number, or the right one."""
    lost = 0
    for number in range(20):
        tracer, gpu = traced(constant(200))
        with tracer.window("w", align=True) as window:
            clock.sleep(2.03)
            gpu.reset_s = clock.t + 0.02 * number
        if math.isnan(window.reading.joules):
            assert "reset" in window.reading.reason
            lost += 1
        else:
            assert window.reading.joules == pytest.approx(200 * window.reading.seconds, rel=1e-3)
    assert lost in range(5, 15)


@pytest.mark.parametrize("deaf_s", [0.4, 0.7, 1.0])
def test_a_gap_in_the_reads_does_not_move_the_next_tick(traced, clock, deaf_s):
    """The first read after a gap shows a tick that is at most one period old, not one from the middle of the gap."""
    tracer, _ = traced(constant(200), deaf=lambda t: 1.0 <= t < 1.0 + deaf_s)
    with tracer.window("w") as window:
        clock.sleep(1.05 + deaf_s)
    true = 200 * (1.05 + deaf_s)
    assert window.reading.source == "nvml:counter"
    assert abs(window.reading.joules - true) <= window.reading.ci95_joules < 0.2 * true
    assert window.reading.joules == pytest.approx(true, rel=0.08)


def test_a_reset_before_the_window_does_not_matter(traced, clock):
    tracer, _ = traced(constant(200), reset_s=2.0)
    with tracer.window("outer") as outer:
        clock.sleep(4.0)
        with tracer.window("after") as after:
            clock.sleep(6.0)
    assert math.isnan(outer.reading.joules)
    assert after.reading.joules == pytest.approx(1200, rel=0.01)
    assert math.isnan(outer.reading.self_joules)


def test_a_lost_device_that_comes_back(traced, clock):
    tracer, gpu = traced(constant(200), lost=(3.0, 6.0))
    with tracer.window("hit") as hit:
        clock.sleep(10.0)
    assert math.isnan(hit.reading.joules)
    assert "lost 3.0" in hit.reading.reason
    assert gpu.reopened == 1  # tried once in an outage, not at every beat
    assert hit.reading.unmeasured_s == pytest.approx(3.0, abs=1.1)
    with tracer.window("next") as following:
        clock.sleep(6.0)
    assert following.reading.joules == pytest.approx(1200, rel=0.01)
    assert following.reading.grade in "AB"


def test_a_device_lost_for_good(traced, clock):
    tracer, gpu = traced(constant(200), lost=(3.0, math.inf))
    with tracer.window("hit") as hit:
        clock.sleep(60.0)
    assert math.isnan(hit.reading.joules)
    assert "lost" in hit.reading.reason
    assert len(gpu.calls) < 60 + 2 * 60 + 3 * 60  # it backs off to a try a second


def test_a_transient_refusal_costs_a_gap_and_no_energy(traced, clock):
    tracer, _ = traced(constant(200), deaf=lambda t: 3.0 <= t < 3.3)
    with tracer.window("w") as window:
        clock.sleep(12.0)
    assert window.reading.joules == pytest.approx(2400, rel=0.01)
    assert window.reading.grade == "B"
    assert window.reading.provenance["nvml_errors"]
    assert window.reading.max_gap_s > 0.3


def test_a_counter_that_stops_ticking(traced, clock):
    tracer, _ = traced(constant(200), stale=(3.0, 3.8))
    with tracer.window("w") as window:
        clock.sleep(8.0)
    assert (window.reading.grade, window.reading.source) == ("D", "nvml:power.instant")
    assert "the energy counter stood still for" in window.reading.reason
    assert window.reading.joules == pytest.approx(1600, rel=1e-6)


def test_a_counter_that_stops_ticking_beside_a_sensor_that_is_mute(traced, clock):
    mute = ("samples", "power.instant", "power.usage", "power.instant.module")
    tracer, _ = traced(constant(200), stale=(3.0, 3.8), unsupported=mute)
    with tracer.window("w") as window:
        clock.sleep(8.0)
    assert math.isnan(window.reading.joules)
    assert "the energy counter stood still for" in window.reading.reason


def test_a_counter_that_never_ticks(traced, clock):
    tracer, _ = traced(constant(200), stale=(0.0, math.inf))
    for align in (False, True):
        with tracer.window("w", align=align) as window:
            clock.sleep(3.0)
        assert (window.reading.grade, window.reading.source) == ("D", "nvml:power.instant")
        assert window.reading.joules == pytest.approx(200 * window.reading.seconds, rel=1e-6)
        assert "stale" in window.reading.reason


@pytest.mark.parametrize("words", ["Not Ready", "Unknown Error"])
@pytest.mark.parametrize("align", [False, True])
def test_a_counter_that_never_answers_falls_down_the_ladder_in_the_drivers_words(traced, clock, words, align):
    """NVML codes 27 and 999: no 'not supported', and no energy either."""
    tracer, gpu = traced(constant(200))

    def refuse() -> int:
        raise NvmlError("other", words)

    gpu.energy_mj = refuse
    with tracer.window("w", align=align) as window:
        clock.sleep(12.0)
    assert (window.reading.source, window.reading.grade) == ("nvml:power.instant", "D")
    assert f"counter: {words}" in window.reading.reason
    assert window.reading.joules == pytest.approx(2400, rel=0.01)


def test_a_power_field_that_never_answers_gives_way_to_the_next(traced, clock):
    tracer, gpu = traced(constant(200), unsupported=("counter", "samples"))
    real = gpu.power_mw

    def power(source: str) -> int:
        if source == "power.instant":
            raise NvmlError("other", "Unknown Error")
        return real(source)

    gpu.power_mw = power
    with tracer.window("w") as window:
        clock.sleep(12.0)
    assert window.reading.source == "nvml:power.usage"
    assert window.reading.joules == pytest.approx(2400, rel=0.05)


@pytest.mark.parametrize(
    ("missing", "source", "grade"),
    [
        ((), "nvml:counter", "B"),
        (("counter",), "nvml:samples", "C"),
        (("counter", "samples"), "nvml:power.instant", "D"),
        (("counter", "samples", "power.instant"), "nvml:power.usage", "D"),
        (("counter", "samples", "power.instant", "power.usage"), "nvml:power.instant.module", "D"),
    ],
)
def test_the_ladder_of_sources(traced, clock, missing, source, grade):
    tracer, _ = traced(constant(200), unsupported=missing)
    clock.sleep(3.0)
    with tracer.window("w") as window:
        clock.sleep(12.0)
    reading = window.reading
    assert (reading.source, reading.grade) == (source, grade)
    assert reading.joules == pytest.approx(2400, rel=0.01)
    assert set(reading.provenance["unsupported"]) >= set(missing) - {"samples"}
    assert reading.provenance["source_scope"] == ("module" if source.endswith("module") else "gpu")


def test_a_window_too_short_for_the_counter_falls_to_a_faster_sensor(traced, clock):
    """Volta: the sensor publishes every 20 ms, the counter ticks every 100 ms."""
    tracer, _ = traced(constant(200), arch="volta", period_s=0.02, window_s=0.01)
    clock.sleep(1.03)
    with tracer.window("w") as window:
        clock.sleep(0.15)
    assert (window.reading.source, window.reading.grade) == ("nvml:power.instant", "D")
    assert window.reading.joules == pytest.approx(30, rel=1e-6)


@pytest.mark.parametrize("jump_us", [3_600_000_000, -3_600_000_000])
def test_the_drivers_buffer_survives_a_step_of_the_wall_clock(traced, clock, jump_us):
    tracer, _ = traced(constant(200), unsupported=("counter",))
    clock.sleep(20.0)
    with tracer.window("w") as window:
        clock.sleep(5.0)
        clock.wall_offset_us += jump_us
        clock.sleep(20.0)
    assert window.reading.joules == pytest.approx(5000, rel=0.01)
    assert window.reading.source == "nvml:samples"


def test_no_source_at_all(traced, clock):
    names = ("counter", "samples", "power.instant", "power.usage", "power.instant.module")
    tracer, _ = traced(constant(200), unsupported=names)
    with tracer.window("w") as window:
        clock.sleep(3.0)
    assert math.isnan(window.reading.joules)
    assert "Not Supported" in window.reading.reason


def test_a_mig_slice_has_no_energy(traced, clock):
    tracer, _ = traced(constant(200), mig=True)
    with tracer.window("w") as window:
        clock.sleep(3.0)
    assert math.isnan(window.reading.joules)
    assert "MIG" in window.reading.reason


def test_strict_raises_after_the_work(traced, clock):
    tracer, _ = traced(constant(200), reset_s=2.0, strict=True)
    before = clock.t
    with pytest.raises(EnergyError, match="reset"), tracer.window("w"):
        clock.sleep(5.0)
    assert clock.t >= before + 5.0


def test_strict_does_not_hide_the_works_own_exception(traced, clock):
    tracer, _ = traced(constant(200), reset_s=2.0, strict=True)

    def work() -> None:
        clock.sleep(5.0)
        raise KeyError("the work's own")

    with pytest.raises(KeyError), tracer.window("w"):
        work()


def test_all_ones_spoil_the_window_that_read_them_and_no_other(traced, clock):
    """One read of 2**64 - 1, as a driver in trouble gives it, between two sound windows of one session."""
    tracer, gpu = traced(constant(200))
    sound = gpu.energy_mj
    with tracer.window("session") as session:
        with tracer.window("before") as before:
            clock.sleep(6.0)
        with tracer.window("hit") as hit:
            clock.sleep(1.0)
            gpu.energy_mj = lambda: 2**64 - 1
            clock.sleep(0.06)
            gpu.energy_mj = sound
            clock.sleep(5.0)
        with tracer.window("after") as after:
            clock.sleep(6.0)
    for spoilt in (hit, session):
        assert math.isnan(spoilt.reading.joules)
        assert "all ones" in spoilt.reading.reason
    for good in (before, after):
        assert good.reading.joules == pytest.approx(1200, rel=0.01), good.reading.reason


def test_all_ones_from_the_power_sensor_are_left_out_and_noted(traced, clock):
    tracer, gpu = traced(constant(200), unsupported=("counter", "samples"))
    sound = gpu.power_mw
    with tracer.window("w") as window:
        clock.sleep(3.0)
        gpu.power_mw = lambda source: 2**32 - 1
        clock.sleep(0.06)
        gpu.power_mw = sound
        clock.sleep(3.0)
    assert window.reading.joules == pytest.approx(200 * window.reading.seconds, rel=1e-6)
    assert "4294967295 mW is no power" in window.reading.provenance["nvml_errors"][0]


def test_slow_calls_are_named_and_not_blamed_on_the_window(traced, clock):
    """A window of 4 s is long enough; that a read takes 2 s is what is wrong."""
    tracer, _ = traced(constant(200), call_s=2.0)
    with tracer.window("w") as window:
        clock.sleep(4.0)
    assert math.isnan(window.reading.joules)
    assert "reads of the energy counter came in" in window.reading.reason
    assert "needs" not in window.reading.reason


@pytest.mark.parametrize(
    ("settings", "seconds", "why"),
    [
        ({}, 1.0, "its uncertainty is"),
        ({"unsupported": ("counter", "samples")}, 12.0, "counter: Not Supported; samples: Not Supported"),
        ({"arch": "volta", "period_s": 0.02, "window_s": 0.01}, 0.13, "it needs 0.20 s"),
    ],
)
def test_grade_d_says_why_it_is_no_better(traced, clock, settings, seconds, why):
    tracer, _ = traced(step(60, 300, 2.0), **settings)
    clock.sleep(1.95)
    with tracer.window("w") as window:
        clock.sleep(seconds)
    assert window.reading.grade == "D"
    assert why in window.reading.reason
    assert window.reading.joules > 0
