"""Clocks, throttling and temperature of a window: its own readings, and nothing that lies beside it."""

from __future__ import annotations

import math

import pytest
from energy_fakes import constant

from benchmark.energy.meters.nvml import Slow


@pytest.fixture
def board(traced, clock):
    """A board that computes at 1900 MHz while `busy` says so and idles at 300 MHz; `bits` and `total_ns` may change with
    time."""
    tracer, gpu = traced(constant(200))
    gpu.busy = lambda t: True
    gpu.bits = lambda t: 0
    gpu.total_ns = lambda t: 0
    gpu.slow = lambda: Slow(
        1900.0 if gpu.busy(clock.t) else 300.0,
        2600.0,
        40.0 + clock.t,
        0,
        gpu.bits(clock.t),
        90.0,
        40.0,
        (),
        {"power": gpu.total_ns(clock.t), "thermal": gpu.total_ns(clock.t)},
    )
    return tracer, gpu


def test_an_idle_clock_beside_the_window_is_not_its_clock(board, clock):
    tracer, gpu = board
    gpu.busy = lambda t: 5.5 <= t < 15.5
    with tracer.window("session"):
        clock.sleep(5.5)
        with tracer.window("work") as work:
            clock.sleep(10.0)
        clock.sleep(5.0)
    seen = work.reading.provenance
    assert [seen[f"sm_clock_mhz_p{p}"] for p in (5, 50, 95)] == [1900, 1900, 1900]
    assert seen["slow_samples"] == 10
    assert seen["temp_start_c"] < 45.5, "temperature changes slowly: the reading before the start tells it best"


def test_a_pause_is_not_the_work(board, clock):
    tracer, gpu = board
    gpu.busy = lambda t: not 4.5 <= t < 8.5
    with tracer.window("work") as work:
        clock.sleep(4.5)
        with work.paused():
            clock.sleep(4.0)
        clock.sleep(4.5)
    assert work.reading.provenance["sm_clock_mhz_p5"] == 1900


def test_a_window_between_two_readings_says_that_it_does_not_know(board, clock):
    tracer, _ = board
    with tracer.window("session"):
        clock.sleep(2.2)
        with tracer.window("work") as work:
            clock.sleep(0.6)
        clock.sleep(2.0)
    seen = work.reading.provenance
    assert seen["slow_samples"] == 0
    assert all(math.isnan(seen[f"sm_clock_mhz_p{p}"]) for p in (5, 50, 95))
    assert (seen["event_reasons"], seen["slowdown_samples"], seen["capped_samples"]) == (None, None, None)
    assert not math.isnan(seen["temp_end_c"])


@pytest.mark.parametrize(
    ("bits", "slowdown", "capped"),
    [
        (0x4, 0, 5),
        (0x8, 5, 0),
        (0x20, 5, 0),
        (0x40, 5, 0),
        (0x80, 5, 0),
        (0x44, 5, 5),
        (0x1 | 0x2 | 0x10 | 0x100, 0, 0),
    ],
)
def test_heat_and_hardware_are_told_from_the_power_limit(board, clock, bits, slowdown, capped):
    tracer, gpu = board
    gpu.bits = lambda t: bits if t >= 3.0 else 0
    with tracer.window("work") as work:
        clock.sleep(7.9)
    seen = work.reading.provenance
    assert (seen["slowdown_samples"], seen["capped_samples"]) == (slowdown, capped)
    assert seen["event_reasons"] == bits


def test_throttling_counts_inside_the_window_only(board, clock):
    tracer, gpu = board
    gpu.total_ns = lambda t: int(1e9 * (min(t, 5.0) + max(0.0, min(t, 12.0) - 10.0)))  # 0 to 5 s, and 10 to 12 s
    with tracer.window("session"):
        clock.sleep(7.3)
        with tracer.window("work") as work:
            clock.sleep(10.0)
        clock.sleep(2.0)
    assert work.reading.provenance["throttle_thermal_ns"] == pytest.approx(2e9, abs=1e7)


def test_throttling_up_to_the_end_is_not_cut_off_at_the_last_reading(board, clock):
    tracer, gpu = board
    gpu.total_ns = lambda t: int(4e8 * t)
    with tracer.window("work") as work:
        clock.sleep(9.7)
    assert work.reading.provenance["throttle_thermal_ns"] == pytest.approx(0.4 * 9.7e9, rel=0.01)
