"""The device lock, the probe, the sensor table and the sampler's schedule."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest
from energy_fakes import FakeGpu, constant, device_of

from benchmark.energy import DeviceBusy, DeviceError, DeviceLock, EnergyTracer, Options, find_device, probe
from benchmark.energy.meters.estimate import TdpLoad
from benchmark.energy.meters.meter import Meter
from benchmark.energy.meters.sensors import sensor_for
from benchmark.energy.timeline.clock import SystemClock, ThreadTicker, utc_label

ROOT = Path(__file__).parents[2]


def test_the_lock_admits_one_and_names_it(clock, tmp_path):
    device = device_of(FakeGpu(clock, constant(1)))
    with DeviceLock(device, folder=tmp_path / "locks") as lock:
        holder = json.loads(lock.path.read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(DeviceBusy) as caught:
            DeviceLock(device, folder=tmp_path / "locks").acquire()
        assert str(os.getpid()) in str(caught.value)
        assert holder["since"] in str(caught.value)
        assert isinstance(caught.value, DeviceError)
        other = device_of(FakeGpu(clock, constant(1), uuid="GPU-other"))
        with DeviceLock(other, folder=tmp_path / "locks"):
            pass
    with DeviceLock(device, folder=tmp_path / "locks") as again:
        again.release()
        again.release()


def test_the_lock_waits_and_dies_with_its_holder(clock, tmp_path):
    device = device_of(FakeGpu(clock, constant(1)))
    path = DeviceLock(device, folder=tmp_path).path
    code = f"""
    import fcntl, os, sys, time
    fd = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(0.4)
    os._exit(1)  # killed, as it were: nothing is released by hand
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DeviceBusy, match="has not signed"):
            DeviceLock(device, folder=tmp_path).acquire()
        with DeviceLock(device, folder=tmp_path, wait_s=10.0):
            assert path.exists()


def test_the_probe_finds_tick_period_and_idle_power(clock):
    gpu = FakeGpu(
        clock, constant(75), tick_s=0.04, phase_s=0.013, call_s=1e-4, unsupported=("samples", "power.instant.module")
    )
    made = []
    # a running board's readings wander: without that a power field shows no changes to time
    gpu._sensor = lambda t, window_s: 75 + 0.1 * (math.floor(t / gpu.period_s + 1e-9) % 7)
    began = clock.t
    facts = probe(device_of(gpu), create_context=lambda: made.append(clock.t), clock=clock)
    assert facts["counter_tick_ms"] == pytest.approx(40, abs=1)
    assert facts["power_fields"]["power.instant"]["supported"] is True
    assert facts["power_fields"]["power.instant"]["period_ms"] == pytest.approx(100, abs=1)
    assert facts["power_fields"]["power.instant.module"] == {
        "supported": False,
        "scope": "module",
        "period_ms": None,
        "table_T_ms": 100,
        "table_W_ms": 25,
        "table_origin": "table",
    }
    assert facts["samples"] == {"supported": False, "reason": "Not Supported"}
    assert facts["energy_field_191"] is True
    assert facts["idle_bare_w"] == pytest.approx(75.3, abs=0.1)
    assert facts["idle_context_w"] == pytest.approx(75.3, abs=0.1)
    assert facts["call_us"]["counter"] == pytest.approx(100, rel=0.1)
    assert len(made) == 1
    assert clock.t - began < 40
    json.dumps(facts, allow_nan=False)


def test_what_was_probed_is_used_and_named(clock, tmp_path):
    gpu = FakeGpu(clock, constant(200), tick_s=0.02)
    facts = {
        "id": "abc",
        "counter_tick_ms": 20.0,
        "idle_bare_w": 61.0,
        "power_fields": {"power.instant": {"period_ms": 50.0}},
    }
    tracer = EnergyTracer(
        device_of(gpu), clock=clock, synchronize=lambda: None, options=Options(probed={gpu.uuid: facts})
    )
    with tracer.window("w", align=True) as window:
        clock.sleep(3.0)
    known = window.reading.provenance
    assert (known["probe_id"], known["idle_bare_w"], known["idle_context_w"]) == ("abc", 61.0, None)
    assert (known["counter_tick_ms"], known["sensor_T_ms"], known["sensor_origin"]) == (20, 50, "T probed, W table")
    assert known["idle_after_w"] == pytest.approx(200, rel=0.02)


def test_the_probe_keeps_to_its_time(clock):
    gpu = FakeGpu(clock, constant(75), stale=(0.0, math.inf), call_s=1e-4)
    facts = probe(device_of(gpu), clock=clock, cap_s=10.0)
    assert clock.t < 11.0
    assert facts["counter_tick_ms"] is None
    assert any("counter" in note for note in facts["notes"])
    json.dumps(facts, allow_nan=False)


def test_the_probe_reads_the_drivers_ring(clock):
    clock.sleep(20.0)
    gpu = FakeGpu(clock, constant(75), arch="pascal", period_s=0.02, window_s=0.01, unsupported=("counter", "field191"))
    facts = probe(device_of(gpu), clock=clock, cap_s=12.0)
    assert facts["samples"]["supported"] is True
    assert facts["samples"]["period_ms"] == pytest.approx(20, abs=0.5)
    assert facts["counter_tick_ms"] is None
    assert facts["energy_field_191"] is False


def test_the_probe_of_a_cpu_says_that_there_is_nothing(tmp_path):
    facts = probe(find_device("cpu", powercap=tmp_path))
    assert "no NVML meter" in facts["notes"][0]
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    ("arch", "name", "source", "wanted"),
    [
        ("hopper", "NVIDIA H200", "power.instant", (0.1, 0.025, "table")),
        ("hopper", "NVIDIA H200", "power.usage", (0.1, 1.0, "table")),
        ("ampere", "NVIDIA A100-SXM4-80GB", "power.usage", (0.1, 0.025, "table")),
        ("ampere", "NVIDIA GeForce RTX 3090", "power.instant", (0.1, 0.1, "table")),
        ("pascal", "Tesla P100-PCIE-16GB", "power.usage", (0.02, 0.01, "table")),
        ("volta", "TITAN V", "samples", (0.02, 0.01, "table")),
        ("blackwell", "NVIDIA B200", "power.instant", (0.1, 0.025, "assumed")),
        (None, "?", "power.usage", (0.1, 1.0, "assumed")),
    ],
)
def test_the_sensor_table(arch, name, source, wanted):
    sensor = sensor_for({"arch": arch, "name": name}, source)
    assert (sensor.period_s, sensor.window_s, sensor.origin) == wanted


def test_the_tickers_period_does_not_grow_by_what_a_call_costs(monkeypatch):
    """The 2021 tracer slept its period after every query; this one keeps to an absolute schedule. In invented time."""
    now_s, stamps = 100.0, []
    monkeypatch.setattr("benchmark.energy.timeline.clock.time.monotonic", lambda: now_s)
    monkeypatch.setattr("benchmark.energy.timeline.clock.threading.Thread.start", lambda thread: None)

    def call() -> None:
        nonlocal now_s
        stamps.append(now_s)
        now_s += 0.15 if len(stamps) == 5 else 0.02  # the fifth takes nearly four periods

    def wait(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if len(stamps) == 10:
            ticker._stopped.set()

    ticker = ThreadTicker(0.04, call)
    monkeypatch.setattr(ticker._stopped, "wait", wait)
    ticker._run()
    steps = [round(b - a, 6) for a, b in pairwise(stamps)]
    assert steps == [0.04] * 4 + [0.16] + [0.04] * 4, "missed beats are skipped, not caught up"


def test_a_stopped_ticker_calls_no_more():
    calls = []
    ticker = SystemClock().ticker(0.01, lambda: calls.append(1))
    while not calls:
        time.sleep(0.005)
    ticker.stop()
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count


def test_simple_meters_fit_the_seam():
    meter: Meter = TdpLoad(65.0)
    before = meter.read()
    sum(i * i for i in range(100_000))
    assert meter.read() > before
    assert meter.source == "estimate:tdp_load@65w"


def test_labels_are_utc():
    assert utc_label(0) == "1970-01-01T00:00:00.000+00:00"


def test_an_estimate_that_rests_on_another_assumption_has_another_source():
    from benchmark.energy.meters.estimate import TdpLoad

    assert [TdpLoad(watts).source for watts in (None, 15.0, 400.0)] == [
        "estimate:tdp_load", "estimate:tdp_load@15w", "estimate:tdp_load@400w",
    ]  # fmt: skip  # a list reads best in rows
