"""Readings as data: schema, NaN round trip, no silent zero, raw samples (point 21)."""

from __future__ import annotations

import csv
import gzip
import json
import math
from dataclasses import fields, replace

import pytest
from energy_fakes import Curve, FakeGpu, VirtualClock, constant, device_of
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.energy import EnergyTracer, Reading
from benchmark.energy.judge.reading import GRADES, worst
from benchmark.energy.timeline.curves import CounterCurve, PowerCurve

PROVENANCE = {
    "schema",
    "tracer_version",
    "window",
    "status",
    "t_start_utc",
    "window_s",
    "sync_method",
    "parent",
    "overhead_s",
    "host",
    "cpu_model",
    "virtualised",
    "python",
    "torch",
    "cuda",
    "name",
    "uuid",
    "pci",
    "arch",
    "vbios",
    "driver",
    "nvml",
    "power_limit_w",
    "persistence",
    "ecc",
    "mig",
    "pstate",
    "source_scope",
    "sensor_T_ms",
    "sensor_W_ms",
    "sensor_origin",
    "aligned",
    "gap_correction_j",
    "u_stat_and_edge_joules",
    "u_gain_joules",
    "step_period_ms",
    "alias_flag",
    "n_samples",
    "sample_period_ms_p50",
    "sample_period_ms_p99",
    "max_gap_ms",
    "zero_readings",
    "counter_tick_ms",
    "nvml_errors",
    "unsupported",
    "sm_clock_mhz_p5",
    "sm_clock_mhz_p50",
    "sm_clock_mhz_p95",
    "mem_clock_mhz",
    "temp_start_c",
    "temp_end_c",
    "temp_max_c",
    "event_reasons",
    "throttle_power_ns",
    "throttle_thermal_ns",
    "foreign_pids",
    "xid_seen",
    "cpu_source",
    "polled_period",
}


@pytest.fixture
def reading(traced, clock):
    tracer, _ = traced(constant(200))
    with tracer.window("w", align=True) as window:
        clock.sleep(12.0)
    return window.reading


@pytest.fixture
def broken(traced, clock):
    tracer, _ = traced(constant(200), reset_s=3.0)
    with tracer.window("w") as window:
        clock.sleep(6.0)
    return window.reading


def test_provenance_is_complete(reading):
    assert set(reading.provenance) >= PROVENANCE
    assert reading.provenance["throttle_power_ns"] == pytest.approx(11e6, abs=2e6)
    assert reading.provenance["event_reasons"] == 4
    assert reading.provenance["sensor_T_ms"] == 100
    assert reading.gpu_util_pct == 90
    assert reading.mem_util_pct == 40
    assert reading.mean_power_w == pytest.approx(200, rel=1e-3)
    assert reading.max_power_w == pytest.approx(200)
    assert reading.wh == pytest.approx(reading.joules / 3600)


@pytest.mark.parametrize("which", ["reading", "broken"])
def test_json_round_trip(which, request):
    reading = request.getfixturevalue(which)
    data = json.loads(json.dumps(reading.to_json(), allow_nan=False))
    back = Reading.from_json(data)
    assert back.to_json() == reading.to_json()
    for f in fields(Reading):
        if f.type == "float":
            one, two = getattr(reading, f.name), getattr(back, f.name)
            assert one == two or (math.isnan(one) and math.isnan(two))
    assert back.children == reading.children


def test_every_nan_has_its_reason(broken):
    data = broken.to_json()
    assert data["joules"] is None
    for name in ("joules", "ci95_joules", "gpu_joules", "mean_power_w", "dram_joules"):
        assert data[name] is None
        assert data["missing"][name]
    assert broken.grade == "X"
    assert broken.reason


def test_strange_json_is_refused(reading):
    data = reading.to_json()
    with pytest.raises(KeyError, match="bananas"):
        Reading.from_json({**data, "bananas": 1})
    with pytest.raises(KeyError, match="grade"):
        Reading.from_json({**data, "grade": "Z"})
    with pytest.raises(TypeError, match="number"):
        Reading.from_json({**data, "joules": "1.5"})
    with pytest.raises(TypeError):
        Reading.from_json({name: value for name, value in data.items() if name != "joules"})


def test_readings_for_people(reading):
    assert reading.text.endswith(" J (A)")
    assert reading.text.startswith("2400 ± ")
    assert replace(reading, grade="E").text.startswith("~2400")


def test_no_reading_for_people(broken):
    assert broken.text.startswith("no energy: the energy counter was reset")


def test_a_reading_cannot_be_changed(reading):
    with pytest.raises(AttributeError):
        reading.joules = 1.0


def test_raw_samples_integrate_to_the_same_energy(reading, tmp_path):
    path = tmp_path / "w.csv.gz"
    count = reading.write_samples_csv_gz(path)
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if not row["kind"].startswith("window.")]
    assert count == len(rows) == len(list(reading.samples()))
    curve = PowerCurve()
    for row in rows:
        if row["kind"] == "power.instant_mw":
            curve.add(round(float(row["t_s"]) * 1e9), int(row["value"]) / 1000)
    end_ns = round(reading.seconds * 1e9)
    assert curve.energy_at(end_ns) - curve.energy_at(0) == pytest.approx(reading.cross_joules, rel=1e-6)
    counter = CounterCurve()
    for row in rows:
        if row["kind"] == "counter_mj":
            counter.add(round(float(row["t_s"]) * 1e9), int(row["value"]) / 1000)
    assert counter.energy_at(end_ns) - counter.energy_at(0) == pytest.approx(reading.joules, rel=1e-3)
    first = path.read_bytes()
    reading.write_samples_csv_gz(path)
    assert path.read_bytes() == first


def test_the_worst_grade():
    assert worst(["A", "B"]) == "B"
    assert worst(["A", "X", "E"]) == "X"
    assert worst([]) == "X"
    assert set(GRADES) == set("ABCDREX")


faults = st.fixed_dictionaries(
    {
        "watts": st.floats(5, 700),
        "seconds": st.floats(0.0, 8.0),
        "align": st.booleans(),
        "unsupported": st.sets(
            st.sampled_from(["counter", "samples", "power.instant", "power.usage", "power.instant.module"])
        ),
        "fault_at": st.floats(0, 8),
        "fault": st.sampled_from(["none", "lost", "reset", "stale", "deaf", "zero"]),
    }
)


@settings(max_examples=80, deadline=None)
@given(case=faults)
def test_no_fault_makes_a_silent_zero_or_a_negative_number(case):
    clock = VirtualClock()
    at = case["fault_at"]
    kinds = {
        "none": {},
        "lost": {"lost": (at, at + 1)},
        "reset": {"reset_s": at},
        "stale": {"stale": (at, at + 2)},
        "deaf": {"deaf": lambda t: at <= t < at + 1},
        "zero": {"zero": lambda t: t >= at},
    }
    gpu = FakeGpu(clock, constant(case["watts"]), unsupported=tuple(case["unsupported"]), **kinds[case["fault"]])
    tracer = EnergyTracer(device_of(gpu), clock=clock, synchronize=lambda: None)
    with tracer.window("w", align=case["align"]) as window:
        clock.sleep(case["seconds"])
    reading = window.reading
    assert math.isnan(reading.joules) == (reading.grade == "X")
    if math.isnan(reading.joules):
        assert reading.reason
    else:
        # what is given is right: within its interval, or within 1 % of the truth
        true = case["watts"] * reading.seconds
        assert abs(reading.joules - true) <= max(reading.ci95_joules, 0.01 * true)
        assert reading.joules > 0
    json.dumps(reading.to_json(), allow_nan=False)


def test_children_survive_the_trip(traced, clock):
    tracer, _ = traced(Curve([(0, 100), (30, 400)]))
    with tracer.window("outer") as outer:
        clock.sleep(1.0)
        with tracer.window("inner"):
            clock.sleep(5.0)
    back = Reading.from_json(json.loads(json.dumps(outer.reading.to_json())))
    assert back.children == outer.reading.children
    assert math.fsum(j for _, j in back.children) + back.self_joules == pytest.approx(back.joules, rel=1e-12)
