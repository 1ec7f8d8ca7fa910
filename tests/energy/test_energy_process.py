"""Processes, forks, exits, cost and imports: points 13 (atexit), 15, 27 and 30."""

from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
from energy_fakes import SteadyGpu, VirtualClock, assert_steady, constant, device_of

from benchmark.energy import EnergyTracer, Options, find_device
from benchmark.energy.timeline.sampler import sampler_for

ROOT = Path(__file__).parents[2]


def real_tracer(**settings) -> EnergyTracer:
    return EnergyTracer(device_of(SteadyGpu(VirtualClock(), constant(200))), synchronize=lambda: None, **settings)


def in_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **env},
    )


def forked(work) -> int:
    """The exit code of `work()` in an os.fork child."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the sampler's thread is alive while we fork: that is the test
        pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_emits_nothing_and_its_parent_goes_on():
    with real_tracer() as tracer, tracer.window("parent") as window:
        time.sleep(0.15)

        def child() -> int:
            with tracer.window("in the child") as own, own.paused():
                pass
            joules, _ = window.peek()
            window.__exit__(None, None, None)  # the child leaves the parent's window too
            tracer.close()
            quiet = not any(t.name == "energy-sampler" and t.is_alive() for t in threading.enumerate())
            said = "forked child" in own.reading.reason and "forked child" in window.reading.reason
            return 0 if said and quiet and math.isnan(own.reading.joules) and not joules < 0 else 1

        assert forked(child) == 0
        time.sleep(0.15)
    assert_steady(window.reading)
    assert window.reading.provenance["pid"] == os.getpid()


def test_a_forked_child_may_start_a_tracer_of_its_own():
    with real_tracer() as tracer, tracer.window("parent"):

        def child() -> int:
            with real_tracer() as own, own.window("w") as window:
                time.sleep(0.3)
            assert_steady(window.reading)
            return 0

        assert forked(child) == 0


def _worker(value: int) -> int:
    return value * value


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_disturb_nothing(method):
    with real_tracer() as tracer, tracer.window("parent") as window, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread is what data loaders do
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_worker, range(4)) == [0, 1, 4, 9]
        time.sleep(0.25)
    assert_steady(window.reading)


@pytest.mark.slow
def test_data_loader_workers_disturb_nothing():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(64.0))
    with real_tracer() as tracer, tracer.window("parent") as window, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        batches = list(torch.utils.data.DataLoader(data, batch_size=8, num_workers=2))
        time.sleep(0.4)
    assert len(batches) == 8
    assert_steady(window.reading)


def test_an_open_window_does_not_hang_or_spoil_the_exit():
    done = in_python(
        """
        from benchmark.energy import EnergyTracer
        tracer = EnergyTracer("cpu")
        window = tracer.window("never closed")
        window.__enter__()
        print("work")
        import atexit
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "work\n", "")


def test_atexit_closes_what_is_open():
    done = in_python(
        """
        import atexit
        window = None
        atexit.register(lambda: print(window.closed, window.reading.provenance["status"]))
        from benchmark.energy import EnergyTracer
        tracer = EnergyTracer("cpu")
        window = tracer.window("w")
        window.__enter__()
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True closed by the tracer's end before its own\n"


def test_an_interrupt_in_a_process_leaves_a_reading():
    done = in_python(
        """
        import os, signal, time
        from pathlib import Path
        from benchmark.energy import EnergyTracer, Options
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job passes on that it is ignored
        with EnergyTracer("cpu", options=Options(powercap=Path("no such folder"))) as tracer:
            window = tracer.window("w")
            try:
                with window:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(5)
            except KeyboardInterrupt:
                print(window.reading.grade, window.reading.provenance["status"][:33])
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "E the work raised KeyboardInterrupt\n"


def test_without_a_gpu_everything_works_and_says_so(tmp_path):
    """No NVML, no powercap, no torch, warnings as errors: grade E, with the reasons."""
    done = in_python(
        """
        import sys, json
        from pathlib import Path
        from benchmark.energy import EnergyTracer, Options, Reading, find_device, probe
        nowhere = Path("no such folder")
        device = find_device("auto", powercap=nowhere)
        with EnergyTracer(device, options=Options(powercap=nowhere)) as tracer, tracer.window("w") as window:
            sum(i * i for i in range(200_000))
        reading = window.reading
        assert reading.grade == "E" and reading.joules > 0, reading
        assert reading.ci95_joules > 0.7 * reading.joules
        assert reading.source == "estimate:tdp_load"
        assert "assumed 4 W per logical core" in reading.provenance["cpu_estimate"]
        assert Reading.from_json(json.loads(json.dumps(reading.to_json(), allow_nan=False))).joules == reading.joules
        assert probe(device)["notes"]
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        print(*device.why_not_better, sep="\\n")
        """,
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nvml: ")
    assert "\nrapl: no such folder does not exist" in done.stdout
    assert done.stderr == ""


def test_the_given_rated_power_scales_the_estimate(tmp_path):
    readings = []
    for watts in (10.0, 40.0):
        device = find_device("cpu", powercap=tmp_path)
        tracer = EnergyTracer(device, cpu_tdp_w=watts, options=Options(powercap=tmp_path))
        with tracer.window("w") as window:
            begin = time.process_time()
            while time.process_time() - begin < 0.1:
                pass
        readings.append(window.reading)
        assert window.reading.joules == pytest.approx(0.1 * watts / (os.cpu_count() or 1), rel=0.3)
        assert "given" in window.reading.provenance["cpu_estimate"]
    with pytest.raises(ValueError, match="positive"):
        EnergyTracer(device, cpu_tdp_w=-1.0)


def test_children_of_the_process_are_counted(tmp_path):
    device = find_device("cpu", powercap=tmp_path)
    tracer = EnergyTracer(device, cpu_tdp_w=float(os.cpu_count() or 1), options=Options(powercap=tmp_path))
    with tracer.window("w") as window:
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert window.reading.joules > 0.25  # one watt per core: joules are CPU seconds


def test_ranks_beside_the_first_do_not_trace(traced, clock, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    tracer, gpu = traced(constant(200))
    with tracer.window("w") as window:
        clock.sleep(3.0)
    assert "rank 1 does not trace" in window.reading.reason
    assert not gpu.calls
    tracer, _ = traced(constant(200), options=Options(every_rank=True))
    with tracer.window("w") as window:
        clock.sleep(3.0)
    assert window.reading.joules == pytest.approx(600, rel=0.02)


def test_the_readings_say_what_the_sampler_cost():
    """How little that is, scripts/perf_energy.py shows."""
    tracer = real_tracer(options=Options(period_s=0.02))
    with tracer.window("w") as window:
        time.sleep(0.3)
    assert 0 < window.reading.provenance["overhead_s"] <= time.process_time()


def test_importing_brings_nothing_heavy():
    """What it takes, scripts/perf_energy.py shows."""
    done = in_python(
        """
        import sys
        import benchmark.energy
        print(*{"torch", "numpy", "pandas", "pynvml", "pydantic"} & set(sys.modules))
        """
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_one_thread_for_all_tracers_and_none_when_all_is_closed():
    def samplers() -> int:
        return sum(t.name == "energy-sampler" for t in threading.enumerate())

    one, two = real_tracer(), real_tracer(options=Options(period_s=0.02))
    assert samplers() == 0
    with one.window("a") as a:
        assert samplers() == 1
        with two.window("b") as b:
            assert samplers() == 1
            time.sleep(0.3)
        assert samplers() == 1
    assert samplers() == 0
    # a busy machine skips beats, it never adds any: the shorter of the two periods rules
    assert 2 <= b.reading.n_samples <= 0.3 / 0.02 + 3 + 100 * (b.reading.seconds - 0.3)
    assert_steady(a.reading)
    assert sampler_for(one.clock) is sampler_for(two.clock)
