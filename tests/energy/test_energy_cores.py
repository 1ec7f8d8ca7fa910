"""Who used the processor while a window was open: the run itself, or other work, which raises what a CPU spends."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from energy_fakes import Curve, constant, step

from benchmark.energy import EnergyTracer, Options, find_device
from benchmark.energy.meters import estimate
from benchmark.energy.meters.estimate import busy_cpu_seconds


@pytest.fixture
def cores(clock, monkeypatch):
    """Says how many cores this process and the others keep busy, over the seconds of the virtual clock."""

    def say(own: Curve, others: Curve) -> None:
        monkeypatch.setattr(estimate, "tree_cpu_seconds", lambda: own.energy(clock.t))
        monkeypatch.setattr(estimate, "busy_cpu_seconds", lambda: 1000.0 + own.energy(clock.t) + others.energy(clock.t))

    return say


@pytest.fixture
def tracer(clock, tmp_path):
    nowhere = tmp_path / "no-powercap"
    return EnergyTracer(find_device("cpu", powercap=nowhere), clock=clock, options=Options(powercap=nowhere))


def test_a_window_tells_its_own_work_from_that_of_others(cores, tracer, clock):
    cores(constant(1.5), constant(0.25))
    with tracer.window("w") as window:
        clock.sleep(10.0)
    assert window.reading.own_cores == pytest.approx(1.5)
    assert window.reading.others_cores == pytest.approx(0.25)


@pytest.mark.parametrize(
    "case",
    [
        (1.5, 0.5, "other programs kept 0.5 cores busy beside the 1.5 of this run"),
        (1.9, 0.2, ""),  # less than a tenth of what was used
        (0.01, 0.09, ""),  # a machine that waits: its own housekeeping
    ],
)
def test_a_reading_says_what_disturbed_it(cores, tracer, clock, case):
    own, others, said = case
    cores(constant(own), constant(others))
    with tracer.window("w") as window:
        clock.sleep(10.0)
    assert said in window.reading.disturbance
    assert bool(window.reading.disturbance) is bool(said)
    on_a_gpu = replace(window.reading, source="nvml:counter", others_cores=1.0)
    assert on_a_gpu.disturbance == ""
    assert replace(window.reading, others_cores=math.nan).disturbance == ""
    disturbed = replace(window.reading, others_cores=1.0)
    assert disturbed.disturbance
    assert replace(disturbed, joules=math.nan).disturbance == replace(disturbed, source="").disturbance == ""


def test_what_others_do_in_a_pause_is_left_out(cores, tracer, clock):
    cores(constant(1.0), step(0.0, 3.0, 2.0, 4.0))
    with tracer.window("w") as window:
        clock.sleep(2.0)
        with window.paused():
            clock.sleep(2.0)
        clock.sleep(2.0)
    assert window.reading.others_cores == pytest.approx(0.0, abs=0.05)
    with tracer.window("no pause") as window:
        clock.sleep(1.0)
    assert window.reading.others_cores == pytest.approx(0.0, abs=1e-6)


def test_a_gpus_window_tells_it_too(cores, traced, clock):
    cores(constant(1.0), constant(2.0))
    tracer, _ = traced(constant(100))
    with tracer.window("w") as window:
        clock.sleep(2.0)
    assert window.reading.others_cores == pytest.approx(2.0)


@pytest.mark.parametrize(
    "case",
    [
        (0.4, 1.0, "too short to tell"),
        (2.0, math.nan, "does not say how busy"),
        (2.0, -0.5, "of another computer"),
    ],
)
def test_where_it_cannot_be_told_the_reason_stands(cores, tracer, clock, case):
    seconds, others, why = case
    cores(constant(1.0), constant(others))
    with tracer.window("w") as window:
        clock.sleep(seconds)
    assert math.isnan(window.reading.others_cores)
    assert why in window.reading.missing["others_cores"]
    assert window.reading.joules > 0, "the energy does not depend on it"


def test_a_child_that_ends_elsewhere_is_not_the_work_of_others(tracer, clock, monkeypatch):
    """Its seconds leave our tree: until we have used as many again, nobody can say what is ours."""

    def ours() -> float:
        return clock.t if clock.t < 3.5 else clock.t - 2.0

    monkeypatch.setattr(estimate, "tree_cpu_seconds", ours)
    monkeypatch.setattr(estimate, "busy_cpu_seconds", lambda: clock.t)
    names = ("before", "as it ends", "after", "when all is caught up")
    found = {}
    with tracer.window("outer") as outer:
        for name, length_s in zip(names, (2.0, 2.0, 1.5, 3.0), strict=True):
            with tracer.window(name) as window:
                clock.sleep(length_s)
            found[name] = window.reading
    assert math.isnan(outer.reading.others_cores)
    assert found["before"].others_cores == pytest.approx(0.0, abs=1e-6)
    assert found["when all is caught up"].others_cores == pytest.approx(0.0, abs=1e-6)
    for name in names[1:3]:
        assert math.isnan(found[name].others_cores)
        assert "ended elsewhere" in found[name].missing["others_cores"]


def test_meters_of_ones_own_count_whatever_proc_says(clock, tmp_path, monkeypatch):
    class Plug:
        source, grade, tick_s, relative_sd = "plug:kitchen", "R", 0.01, 0.0

        def read(self) -> float:
            return 50.0 * clock.t

    def odd() -> float:
        raise ValueError("an odd line in /proc")

    monkeypatch.setattr(estimate, "tree_cpu_seconds", odd)
    nowhere = Options(powercap=tmp_path / "none")
    with EnergyTracer("cpu", meters=[Plug()], clock=clock, options=nowhere) as tracer, tracer.window("w") as window:
        clock.sleep(4.0)
    assert window.reading.joules == pytest.approx(200.0)
    assert "cannot be read" in window.reading.missing["others_cores"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("cpu  300 20 80 5000 7000 5 15 9000 0 0\ncpu0 1 2 3\n", 4.2),  # not idle, not iowait, not what was stolen
        ("cpu0 1 2 3\n", math.nan),
        ("cpu  0 0 0 0 0 0 0 0 0 0\n", math.nan),  # a sandbox that counts nothing
        ("", math.nan),
    ],
)
def test_busy_seconds_are_those_of_work(tmp_path, monkeypatch, text, seconds):
    (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(estimate, "_PROC", tmp_path)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert busy_cpu_seconds() == pytest.approx(seconds, nan_ok=True)


def test_no_proc_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_PROC", tmp_path / "none")
    assert math.isnan(busy_cpu_seconds())


def test_the_kernel_counts_a_process_that_works():
    """What others do can only raise the count, so the test holds on a busy machine."""
    before = busy_cpu_seconds()
    if not before > 0:
        pytest.skip("the kernel of this sandbox keeps no count of busy seconds")
    work = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert busy_cpu_seconds() - before > 0.4
