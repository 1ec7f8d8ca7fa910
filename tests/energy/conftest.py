"""Which test covers which point of the tracer's test list.

 1 closed forms of five curves               test_energy_integrals
 2 counter ticks, phases, bias               test_energy_counter
 3 sensor aliasing                           test_energy_sensor
 4 constant power, nothing de-duplicated     test_energy_integrals
 5 zero, one, two samples                    test_energy_integrals
 6 counter reset at start, middle, end       test_energy_faults
 7 device lost and back                      test_energy_faults
 8 stale counter                             test_energy_faults
 9 unsupported fields, the ladder            test_energy_faults
10 dropped samples, a gap of 5 s             test_energy_sensor
11 0 mW readings                             test_energy_sensor
12 RAPL: wrap, ranges, permissions, zones    test_energy_rapl
13 exceptions, interrupt, atexit             test_energy_windows, test_energy_process
14 nested, overlapping, out of order         test_energy_windows
15 os.fork, multiprocessing, DataLoader      test_energy_process
16 threads                                   test_energy_windows
17 two GPUs, CUDA_VISIBLE_DEVICES            test_energy_devices
18 a step of the wall clock                  test_energy_windows
19 synchronise before reading                test_energy_windows
20 the paper's undercount                    test_energy_sensor
21 schema, NaN round trip, no silent zero    test_energy_reading
22 coverage of the 95 % interval             test_energy_stats
23 interleaved ranking under drift           test_energy_stats
24 additivity                                test_energy_integrals
25 linearity                                 test_energy_integrals
26 Hypothesis curves, fine Riemann sum       test_energy_integrals
27 overhead                                  scripts/perf_energy.py (a benchmark: no test depends on speed)
   clocks, throttling, the power limit       test_energy_slow
   interrupts, drivers that hang, meters of   test_energy_doors
   one's own; locks; a window of a day        test_energy_locks, test_energy_thinning
   who else used the processor                 test_energy_cores
30 no GPU at all                             test_energy_process, test_energy_devices
   (28 and 29 need recorded traces and other tools)
"""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_fakes import FakeGpu, VirtualClock, device_of

from benchmark.energy import EnergyTracer, Options


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def traced(clock, tmp_path):
    """Makes (tracer, gpu) on the virtual clock, without the host's RAPL."""

    def make(curve, *, strict: bool = False, synchronize=None, options: Options | None = None, **gpu_settings):
        gpu = FakeGpu(clock, curve, **gpu_settings)
        tracer = EnergyTracer(
            device_of(gpu),
            clock=clock,
            strict=strict,
            synchronize=synchronize or (lambda: None),
            options=options or Options(powercap=tmp_path / "no-powercap"),
        )
        return tracer, gpu

    return make


@pytest.fixture
def powercap(tmp_path):
    """Writes a fake powercap tree: powercap({"intel-rapl:0": ("package-0", 0, 1000)}) with energy and range in
    microjoules."""
    root = tmp_path / "powercap"

    def write(zones: dict[str, tuple[str, int, int | None]]) -> Path:
        for folder, (name, energy_uj, range_uj) in zones.items():
            path = root / folder
            path.mkdir(parents=True, exist_ok=True)
            (path / "name").write_text(name + "\n")
            (path / "energy_uj").write_text(f"{energy_uj}\n")
            if range_uj is not None:
                (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        return root

    return write
