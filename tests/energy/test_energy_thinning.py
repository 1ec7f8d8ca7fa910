"""A window of a day: bounded memory, and the same energy, gaps and means as if everything had been kept."""

from __future__ import annotations

import pytest
from energy_fakes import FakeGpu, Sine, VirtualClock, constant, device_of

from benchmark.energy import EnergyTracer, Options
from benchmark.energy.timeline import gpu_recorder, thinning
from benchmark.energy.timeline.curves import CounterCurve, PowerCurve
from benchmark.energy.timeline.raw import Raw

HOUR = 3600.0


def held(tracer) -> dict[str, int]:
    ((_, recorder),) = tracer._ledger._session.gpus
    return {
        "raw": len(recorder.raw.t),
        "power": len(recorder.power.t),
        "ticks": len(recorder.counter.t),
        "slow": len(recorder.slow),
    }


@pytest.fixture
def short_hour(monkeypatch):
    """An hour that lasts a minute, and a slot, an edge and a slow slot of the same shares."""
    for name, value in (("WHOLE_NS", 60e9), ("EVERY_NS", 10e9)):
        monkeypatch.setattr(gpu_recorder, name, int(value))


def day(curve, thin: bool, monkeypatch, tmp_path, **settings):
    """Twenty minutes as a day: with pauses, and a child now and then."""
    if not thin:
        monkeypatch.setattr(gpu_recorder, "WHOLE_NS", 10**18)
    clock = VirtualClock()
    gpu = FakeGpu(clock, curve, **settings)
    tracer = EnergyTracer(
        device_of(gpu), clock=clock, synchronize=lambda: None, options=Options(powercap=tmp_path / "none")
    )
    sizes = []
    with tracer.window("day") as window:
        for _ in range(12):
            clock.sleep(90.0)
            with window.paused():
                clock.sleep(3.3)
            with tracer.window("child"):
                clock.sleep(7.1)
            sizes.append(held(tracer))
    return window.reading, sizes


POLLED, DEAF = {"unsupported": ("counter", "samples")}, {"deaf": lambda t: 100 < t < 103}


@pytest.mark.parametrize(
    ("curve", "settings"),
    [
        (Sine(300, 120, 41.0), {}),
        pytest.param(Sine(300, 120, 41.0), POLLED, marks=pytest.mark.slow),
        pytest.param(Sine(300, 120, 41.0), DEAF, marks=pytest.mark.slow),
        pytest.param(constant(200), POLLED, marks=pytest.mark.slow),
    ],
)
def test_a_long_window_reads_the_same_and_holds_a_bounded_part(short_hour, monkeypatch, tmp_path, curve, settings):
    thin, sizes = day(curve, True, monkeypatch, tmp_path, **settings)
    whole, all_sizes = day(curve, False, monkeypatch, tmp_path, **settings)
    assert thin.joules == pytest.approx(whole.joules, rel=1e-9)
    assert thin.paused_joules == pytest.approx(whole.paused_joules, rel=1e-9)
    assert (thin.grade, thin.source, thin.reason) == (whole.grade, whole.source, whole.reason)
    assert thin.polled_joules == pytest.approx(whole.polled_joules, rel=0.01)
    assert thin.max_power_w == pytest.approx(whole.max_power_w, rel=1e-9)
    assert thin.unmeasured_s == pytest.approx(whole.unmeasured_s, abs=0.6)
    assert thin.gpu_util_pct == pytest.approx(whole.gpu_util_pct)
    assert [joules for _, joules in thin.children] == pytest.approx([joules for _, joules in whole.children], rel=1e-9)
    for name in ("raw", "power"):
        first, last = sizes[2][name], sizes[-1][name]
        assert last < 0.4 * all_sizes[-1][name], "most of it is gone"
        assert last - first < 0.45 * (all_sizes[-1][name] - all_sizes[2][name])


def test_what_a_day_would_hold_is_bounded():
    """Two readings a beat for a day, an edge every five minutes: some ten megabytes, and the last hour whole."""
    raw, power = Raw(), PowerCurve()
    edges = list(range(0, 86_400 * 10**9, 300 * 10**9))
    for beat in range(0, 86_400 * 4):  # at 4 Hz, to spare the test's time
        t = beat * 250_000_000
        raw.add(t, "counter_mj", beat, 1000)
        power.add(t, 200.0)
    until = 86_400 * 10**9 - thinning.WHOLE_NS
    joules = power.energy_at(80_000 * 10**9)
    raw.thin(until, edges)
    power.thin(until, edges)
    hour = 4 * 3600
    assert hour < len(raw.t) < hour + 2 * 82_800 + 288 * 20
    assert hour < len(power.t) < hour + 2 * 82_800 + 288 * 20
    assert power.energy_at(80_000 * 10**9) == pytest.approx(joules)
    assert sum(t >= until for t in raw.t) == hour


def test_a_gap_in_what_was_thinned_is_still_a_gap():
    power = PowerCurve()
    for beat in range(2000):
        if not 500 <= beat < 560:
            power.add(beat * 50_000_000, 200.0)
    before = sum(power.gaps(0, 100 * 10**9, 150e6))
    power.thin(90 * 10**9, [])
    assert len(power.t) < 500
    assert sum(power.gaps(0, 100 * 10**9, 150e6)) == pytest.approx(before, rel=0.02)
    assert before == pytest.approx(3.05e9)


def test_all_ticks_around_an_edge_stay():
    curve = CounterCurve()
    for beat in range(4000):
        curve.add(beat * 50_000_000, (beat // 2) * 20.0)
    edge = 77 * 10**9 + 33_000_000
    joules = curve.energy_at(edge)
    curve.thin(150 * 10**9, [edge])
    assert len(curve.t) < 1200
    assert curve.energy_at(edge) == joules
    assert curve.ticks_between(edge - 10**9, edge + 10**9) == 20
