"""RAPL against a fake powercap tree: point 12."""

from __future__ import annotations

import math
import os

import pytest
from energy_fakes import VirtualClock

from benchmark.energy import EnergyTracer, Options, find_device
from benchmark.energy.meters.rapl import open_rapl, read_zones

RANGE = 262_143_328_850


def set_uj(root, zone: str, value: int) -> None:
    (root / zone / "energy_uj").write_text(f"{value}\n")


def cpu_tracer(root, clock) -> EnergyTracer:
    return EnergyTracer(find_device("cpu", powercap=root), clock=clock, options=Options(powercap=root))


class Meter:
    """Raises a zone's counter with virtual time, wrapping at its range."""

    def __init__(self, clock: VirtualClock, root, zone: str, watts: float, start_uj: int) -> None:
        def beat() -> None:
            gone_uj = (clock.ns - self.origin) // 1000 * watts
            set_uj(root, zone, int(start_uj + gone_uj) % RANGE)

        self.origin = clock.ns
        clock.ticker(0.01, beat)


def test_package_energy_is_the_headline_of_a_cpu(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 5_000_000, RANGE), "intel-rapl:1": ("package-1", 7_000_000, RANGE)})
    Meter(clock, root, "intel-rapl:0", 100.0, 5_000_000)
    Meter(clock, root, "intel-rapl:1", 50.0, 7_000_000)
    device = find_device("cpu", powercap=root)
    assert (device.source, device.grade_best) == ("rapl:package-0+package-1", "R")
    tracer = cpu_tracer(root, clock)
    with tracer.window("w") as window:
        clock.sleep(4.0)
        with window.paused():
            clock.sleep(2.0)
        clock.sleep(4.0)
    reading = window.reading
    assert reading.joules == pytest.approx(150 * 8, rel=0.01)
    assert reading.paused_joules == pytest.approx(300, rel=0.01)
    assert (reading.grade, reading.source, reading.cpu_source) == ("R", device.source, device.source)
    assert reading.cpu_joules == reading.joules
    assert reading.ci95_joules < 0.01 * reading.joules
    assert math.isnan(reading.gpu_joules)
    assert reading.max_power_w == pytest.approx(150, rel=0.05)


def test_one_wrap_is_undone(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", RANGE - 50_000_000, RANGE)})
    Meter(clock, root, "intel-rapl:0", 100.0, RANGE - 50_000_000)
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(5.0)
    assert window.reading.joules == pytest.approx(500, rel=0.01)


def test_a_wrap_between_two_reads_of_a_short_window(powercap, clock):
    """The counter wraps between two neighbouring reads 0.1 s apart: neither minus the range nor plus it."""
    root = powercap({"intel-rapl:0": ("package-0", RANGE - 1_000_000, RANGE)})
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(0.1)
        set_uj(root, "intel-rapl:0", 4_000_000)
    assert window.reading.joules == pytest.approx(5.0, rel=1e-6)


def test_a_wrap_without_a_readable_range_is_nan(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 9_000_000, None)})
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(2.0)
        set_uj(root, "intel-rapl:0", 1_000_000)
    assert math.isnan(window.reading.joules)
    assert "max_energy_range_uj" in window.reading.reason
    assert window.reading.grade == "X"


def test_without_a_range_a_window_that_does_not_wrap_is_fine(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 9_000_000, None)})
    with cpu_tracer(root, clock).window("w") as window:
        for step in range(1, 17):
            clock.sleep(0.25)
            set_uj(root, "intel-rapl:0", 9_000_000 + step * 625_000)
    assert window.reading.joules == pytest.approx(10.0)


@pytest.mark.parametrize("moves_s", [0.0, 3.0])
def test_a_counter_that_stands_still_falls_to_the_estimate(powercap, clock, moves_s):
    """It can be read, and that is all: 5 s are not too short for it."""
    root = powercap({"intel-rapl:0": ("package-0", 9_000_000, RANGE)})
    with cpu_tracer(root, clock).window("w") as window:
        if moves_s:
            clock.sleep(moves_s)
            set_uj(root, "intel-rapl:0", 19_000_000)
        clock.sleep(5.0)
        sum(i * i for i in range(20_000))  # the estimate counts CPU time
    reading = window.reading
    assert (reading.source, reading.grade) == ("estimate:tdp_load", "E")
    assert "rapl:package-0 stood still for 4" in reading.reason or "stood still for 5" in reading.reason
    assert reading.joules > 0
    assert "assumed" in reading.provenance["cpu_estimate"]


def test_an_implausible_step_is_no_energy(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 900_000_000, RANGE)})
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(0.5)
        set_uj(root, "intel-rapl:0", 1_000_000)  # a reset looks like a wrap of a quarter megajoule
    assert math.isnan(window.reading.joules)
    assert "no energy" in window.reading.reason


def test_a_zone_that_vanishes(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 9_000_000, RANGE)})
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(2.0)
        (root / "intel-rapl:0" / "energy_uj").unlink()
        clock.sleep(2.0)
    assert math.isnan(window.reading.joules)
    assert "FileNotFoundError" in window.reading.reason


def test_permission_denied_says_what_to_do(powercap, monkeypatch):
    root = powercap({"intel-rapl:0": ("package-0", 9_000_000, RANGE)})
    from pathlib import Path

    real = Path.read_text

    def denied(self, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", denied)  # chmod does not bind root, and tests may run as root
    device = find_device("cpu", powercap=root)
    assert device.source == "estimate:tdp_load"
    assert device.grade_best == "E"
    assert any("permission denied" in line and "chmod" in line for line in device.why_not_better)


def test_one_unreadable_socket_of_two_is_no_measurement(powercap):
    root = powercap({"intel-rapl:0": ("package-0", 1, RANGE), "intel-rapl:1": ("package-1", 1, RANGE)})
    (root / "intel-rapl:1" / "energy_uj").unlink()
    rapl = open_rapl(root)
    assert rapl.package == ()
    assert "package-1" in rapl.reason


def test_nested_zones_are_not_summed(powercap, clock):
    """psys contains the package, the package contains core and uncore, mmio shows it again; dram stands beside."""
    zones = {
        "intel-rapl:0": ("package-0", 0, RANGE),
        "intel-rapl:0:0": ("core", 0, RANGE),
        "intel-rapl:0:1": ("uncore", 0, RANGE),
        "intel-rapl:0:2": ("dram", 0, RANGE),
        "intel-rapl:1": ("psys", 0, RANGE),
        "intel-rapl-mmio:0": ("package-0", 0, RANGE),
    }
    root = powercap(zones)
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(0.5)
        for zone, joules in zip(zones, (100, 70, 20, 30, 160, 100), strict=True):
            set_uj(root, zone, joules * 1_000_000)
        clock.sleep(0.5)
    reading = window.reading
    assert reading.joules == pytest.approx(100)
    assert reading.dram_joules == pytest.approx(30)
    assert (reading.source, reading.dram_source) == ("rapl:package-0", "rapl:dram-0")


def test_dram_below_its_package_as_a_directory(powercap):
    root = powercap({"intel-rapl:0": ("package-0", 0, RANGE), "intel-rapl:0/intel-rapl:0:0": ("dram", 0, RANGE)})
    os.symlink(root / "intel-rapl:0" / "intel-rapl:0:0", root / "intel-rapl:0:0")  # the kernel shows it at both places
    rapl = open_rapl(root)
    assert [zone.name for zone in rapl.dram] == ["dram-0"]


def test_psys_stands_in_only_where_there_is_no_package(powercap):
    assert open_rapl(powercap({"intel-rapl:0": ("psys", 0, RANGE)})).source == "rapl:psys"


def test_a_window_too_short_for_rapl(powercap, clock):
    root = powercap({"intel-rapl:0": ("package-0", 0, RANGE)})
    Meter(clock, root, "intel-rapl:0", 100.0, 0)
    with cpu_tracer(root, clock).window("w") as window:
        clock.sleep(0.002)
    assert math.isnan(window.reading.joules)
    assert "too short for rapl:package-0" in window.reading.reason


def test_the_host_stands_beside_the_gpu(powercap, clock, traced):
    from energy_fakes import constant

    root = powercap({"intel-rapl:0": ("package-0", 0, RANGE)})
    Meter(clock, root, "intel-rapl:0", 80.0, 0)
    tracer, _ = traced(constant(300), options=Options(powercap=root))
    with tracer.window("w") as window:
        clock.sleep(10.0)
    reading = window.reading
    assert reading.joules == reading.gpu_joules == pytest.approx(3000, rel=0.01)
    assert reading.cpu_joules == pytest.approx(800, rel=0.01)
    assert math.isnan(reading.dram_joules)
    assert "dram" in reading.missing["dram_joules"]


def test_zones_read_as_one(powercap):
    root = powercap({"intel-rapl:0": ("package-0", 0, RANGE), "intel-rapl:1": ("package-1", 0, RANGE)})
    zones = open_rapl(root).package
    read_zones(zones, 0)
    set_uj(root, "intel-rapl:0", 2_000_000)
    set_uj(root, "intel-rapl:1", 3_000_000)
    assert read_zones(zones, 10**9) == pytest.approx(5.0)
    assert math.isnan(read_zones((), 0))
