"""The tracer with its real threads, under the real pynvml, on the compiled fake driver: as on a user's machine."""

import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import benchmark.energy as energy
from tests.energy.fake_nvml import NO_PERMISSION, NOT_SUPPORTED, Curve, FakeDriver, run_python, shared_library, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

SQUARE = Curve("square", lo_w=100, hi_w=300, period_s=0.23)
TICK = {"tick_s": 0.02, "tick_phase_s": 0.007, "power_period_s": 0.02, "instant_window_s": 0.02}
NO_COUNTER = f"nvmlDeviceGetTotalEnergyConsumption:{NOT_SUPPORTED}"


@pytest.fixture
def driver(monkeypatch):
    """Install a fake driver with a fast tick, so that windows of half a second hold enough of them."""
    installed = []

    def start(*curves, **settings):
        monkeypatch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        fake = FakeDriver(shared_library(), *(curves or (SQUARE,)), **(TICK | settings))
        installed.append(fake.__enter__())
        return fake

    yield start
    for fake in installed:
        fake.__exit__()


def tracer_of(device, **settings):
    """A tracer that waits for nothing: another test of this process may have loaded a torch that has no CUDA."""
    return energy.EnergyTracer(device, synchronize=lambda: None, **settings)


def measure(fake, seconds, *, device="cuda:0", align=False, during=None):
    """(reading of one window, true joules of its first card between the window's own edges)."""
    tracer = tracer_of(device)
    with tracer.window("work", align=align) as window:
        begin = time.monotonic()
        if during is not None:
            during()
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        end = time.monotonic()
    # a busy machine may stop this thread between an edge and the moment just inside of it, on either side
    late = 0.0 if align else window.reading.seconds - (end - begin)
    return window.reading, fake.joules(begin - late / 2, end + late / 2, tracer.device.nvml_index)


def assert_right(reading, true_joules, room=0.01):
    assert reading.joules == pytest.approx(true_joules, abs=2 * reading.ci95_joules + room * true_joules)


def assert_no_number(reading, *words):
    assert math.isnan(reading.joules)
    assert reading.grade == "X"
    for word in words:
        assert word in reading.reason


def test_an_aligned_window_is_right_within_its_interval(driver):
    fake = driver(Curve("steps", lo_w=80), tick_s=0.1, tick_phase_s=0.03)

    def work():
        for watts in (400, 250, 330):
            fake.load(watts)
            time.sleep(0.13)
        fake.load(80)  # the device rests when the window ends: so it does after a synchronize

    for _ in range(5):  # a busy machine sees the ticks late, and then the interval is wide
        reading, truth = measure(fake, 0.4, align=True, during=work)
        assert reading.source == "nvml:counter"
        assert_right(reading, truth)
        if reading.ci95_joules < 0.05 * truth:
            break
    assert reading.ci95_joules < 0.05 * truth


def test_an_interpolated_window_is_right_within_its_interval(driver):
    reading, truth = measure(driver(), 0.6)
    assert reading.source == "nvml:counter"
    assert_right(reading, truth)
    assert reading.cross_joules == pytest.approx(truth, rel=0.2)


@pytest.mark.slow
def test_a_default_card_over_thirty_ticks_of_100_ms(driver):
    reading, truth = measure(driver(tick_s=0.1, tick_phase_s=0.03, power_period_s=0.1, instant_window_s=0.025), 3.1)
    assert_right(reading, truth)


def test_a_window_shorter_than_the_meters_see_has_no_number(driver):
    reading, _ = measure(driver(tick_s=0.5, power_period_s=0.5), 0.02)
    assert_no_number(reading, "tick")


def test_gpu_lost_and_lost_and_back(driver):
    fake = driver()
    fake.set(lost=fake.now_s() + 0.2)
    reading, _ = measure(fake, 0.5)
    assert_no_number(reading, "lost")
    fake.set(lost=None)
    reading, truth = measure(fake, 0.5)
    assert_right(reading, truth)
    fake.set(lost=f"{fake.now_s() + 0.1}/{fake.now_s() + 0.3}")
    reading, _ = measure(fake, 0.7)
    assert_no_number(reading, "lost")


@pytest.mark.parametrize("after_s", [0.02, 0.3, 0.55])
def test_a_counter_reset_at_the_start_middle_and_end(driver, after_s):
    fake = driver()
    reading, _ = measure(fake, 0.6, during=lambda: fake.set(reset=fake.now_s() + after_s))
    assert_no_number(reading, "reset")


def test_a_stale_counter(driver):
    fake = driver()
    reading, truth = measure(fake, 1.0, during=lambda: fake.set(stale=fake.now_s()))
    assert (reading.source, reading.grade) == ("nvml:power.instant", "D")
    assert "stale" in reading.reason
    assert_right(reading, truth)


def test_garbage_from_the_counter_is_no_number(driver):
    fake = driver()
    reading, _ = measure(fake, 0.5, during=lambda: fake.set(garbage=f"{fake.now_s() + 0.2}/{fake.now_s() + 0.3}"))
    assert_no_number(reading)
    assert reading.reason


def test_pascal_falls_to_the_drivers_samples(driver):
    reading, truth = measure(driver(arch=4), 0.6)
    assert (reading.source, reading.grade) == ("nvml:samples", "C")
    assert_right(reading, truth, room=0.03)


def test_without_samples_it_polls_the_instant_field(driver):
    reading, truth = measure(driver(arch=4, fail=f"nvmlDeviceGetSamples:{NOT_SUPPORTED}"), 0.6)
    assert (reading.source, reading.grade) == ("nvml:power.instant", "D")
    assert_right(reading, truth, room=0.03)


def test_without_the_field_it_polls_power_usage(driver):
    fail = f"{NO_COUNTER},nvmlDeviceGetSamples:{NOT_SUPPORTED},field186:{NOT_SUPPORTED}"
    fake = driver(Curve(lo_w=150, hi_w=150), fail=fail)
    reading, truth = measure(fake, 0.5)
    assert (reading.source, reading.grade) == ("nvml:power.usage", "D")
    assert_right(reading, truth)


def test_module_scope_is_named(driver):
    fail = f"{NO_COUNTER},nvmlDeviceGetSamples:3,field186.0:3,nvmlDeviceGetPowerUsage:3"
    reading, truth = measure(driver(Curve(lo_w=150, hi_w=150), fail=fail, module_w=50), 0.5)
    assert reading.source == "nvml:power.instant.module"
    assert reading.joules == pytest.approx(truth * 200 / 150, rel=0.05)


def test_readings_of_0_mw_are_left_out_and_counted(driver):
    fake = driver(Curve(lo_w=200, hi_w=200), arch=4, fail=f"nvmlDeviceGetSamples:{NOT_SUPPORTED}", zero_every=5)
    for length_s in (0.8, 3.0, 10.0):  # on a loaded machine the sampler may meet none in a short window
        reading, truth = measure(fake, length_s)
        assert reading.joules == pytest.approx(truth, rel=0.1)
        if reading.provenance["zero_readings"]:
            break
    assert reading.provenance["zero_readings"] > 0


def test_calls_without_permission_leave_a_reason(driver):
    reading, _ = measure(driver(fail=f"*:{NO_PERMISSION}@0.1"), 0.6, during=lambda: time.sleep(0.1))
    assert_no_number(reading)
    assert reading.reason


def test_slow_calls_make_fewer_samples_and_no_wrong_number(driver):
    fake = driver()
    reading, truth = measure(fake, 1.0, during=lambda: fake.set(slow="*:0.02"))
    if not math.isnan(reading.joules):
        assert_right(reading, truth, room=0.1)


def test_a_foreign_process_is_flagged_and_our_own_is_not(driver):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        own, _ = measure(driver(processes="self:100"), 0.3)
        assert own.provenance["foreign_pids"] == []
        # a child of ours counts as ours, so the stranger is process 1
        shared, _ = measure(driver(processes=f"self:100,{other.pid}:200,1:300"), 0.3)
        assert shared.provenance["foreign_pids"] == [1]
    finally:
        other.communicate()


def test_a_mig_card_has_no_meter(driver):
    reading, _ = measure(driver(mig=2), 0.3)
    assert_no_number(reading, "MIG")


@pytest.mark.parametrize("form", ["index", "uuid"])
def test_two_cards_under_a_permuted_cuda_visible_devices(driver, monkeypatch, form):
    fake = driver(Curve(lo_w=100, hi_w=100), Curve(lo_w=400, hi_w=400))
    order = "1,0" if form == "index" else f"{fake.uuid(1)},{fake.uuid(0)}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", order)
    assert energy.find_device("cuda:0").uuid == fake.uuid(1)
    reading, truth = measure(fake, 0.35)
    assert_right(reading, truth)
    reading, truth = measure(fake, 0.35, device=fake.uuid(0))
    assert_right(reading, truth)


def test_one_window_over_two_cards_is_the_sum_of_both(driver):
    fake = driver(Curve(lo_w=100, hi_w=100), Curve("square", lo_w=100, hi_w=400, period_s=0.2))
    with tracer_of(["cuda:0", "cuda:1"]).window("both") as window:
        begin = time.monotonic()
        time.sleep(0.6)
        end = time.monotonic()
    truths = [fake.joules(begin, end, gpu) for gpu in (0, 1)]
    for reading, truth in zip(window.readings, truths, strict=True):
        assert_right(reading, truth, room=0.02)
    assert window.reading.joules == pytest.approx(sum(reading.joules for reading in window.readings))


def test_one_lost_card_of_two_spoils_the_sum_but_not_the_other(driver):
    fake = driver(Curve(lo_w=100, hi_w=100), Curve(lo_w=400, hi_w=400))
    with tracer_of(["cuda:0", "cuda:1"]).window("both") as window:
        fake.set(1, lost=fake.now_s())
        time.sleep(0.5)
    assert not math.isnan(window.readings[0].joules)
    assert_no_number(window.readings[1], "lost")
    assert math.isnan(window.reading.joules)


def test_strict_raises_after_the_work(driver):
    fake = driver()
    done = []

    def work():
        with tracer_of("cuda:0", strict=True).window("work"):
            fake.set(reset=fake.now_s() + 0.1)
            time.sleep(0.3)
            done.append("the work itself was not stopped")

    with pytest.raises(energy.EnergyError, match="reset"):
        work()
    assert done


def test_no_driver_means_the_cpu_and_says_why(driver):
    driver(fail="nvmlInit:9")
    device = energy.find_device("auto")
    assert device.kind == "cpu"
    assert "nvml: the NVIDIA driver is installed but not loaded" in device.why_not_better[0]
    driver(fail="nvmlInit:12")
    assert "nvml: libnvidia-ml.so.1 not found" in energy.find_device("auto").why_not_better[0]


def test_a_torch_without_cuda_beside_a_gpu_does_not_spoil_the_window(driver):
    """torch is loaded in this process, and this torch sees no GPU; the meter does."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this torch has a GPU")
    driver()
    with energy.EnergyTracer("cuda:0") as tracer, tracer.window("work") as window:
        time.sleep(0.5)
    assert tracer.sync_method == "none"
    assert window.reading.joules > 0, window.reading.reason
    assert "synchronize" not in window.reading.reason


def test_threads_with_windows_of_their_own(driver):
    fake = driver(Curve(lo_w=200, hi_w=200))
    tracer = tracer_of("cuda:0")
    readings = {}

    def work(name, seconds):
        with tracer.window(name) as window:
            begin = time.monotonic()
            time.sleep(seconds)
            truth = fake.joules(begin, time.monotonic())
        readings[name] = (window.reading, truth)

    threads = [threading.Thread(target=work, args=(f"thread {n}", 0.4 + 0.1 * n)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(readings) == 3
    for reading, truth in readings.values():
        assert_right(reading, truth, room=0.02)


FORKS = """
    import json, multiprocessing, os, sys, threading, time, warnings
    from benchmark.energy import EnergyTracer

    def nothing(answers):
        answers.put(sorted(thread.name for thread in threading.enumerate() if "sampler" in thread.name))
        time.sleep(0.1)

    def inherited(tracer):
        with tracer.window("child") as window:
            time.sleep(0.1)
        return [window.reading.grade, window.reading.reason]

    if __name__ == "__main__":
        warnings.filterwarnings("ignore", message=".*multi-threaded")  # Python 3.12 says so at every fork
        tracer = EnergyTracer("cuda:0")
        with tracer.window("parent") as window:
            begin = time.monotonic()
            read, write = os.pipe()
            if os.fork() == 0:
                os.write(write, json.dumps(inherited(tracer)).encode())
                sys.exit(0)  # runs the child's atexit handlers too
            answers = [json.loads(os.read(read, 10_000))]
            os.wait()
            for method in sys.argv[1:]:
                context = multiprocessing.get_context(method)
                queue = context.Queue()
                child = context.Process(target=nothing, args=(queue,))
                child.start()
                answers.append(queue.get())
                child.join()
            time.sleep(0.3)
            end = time.monotonic()
        reading = window.reading
        print(json.dumps([begin, end, reading.joules, reading.ci95_joules, reading.reason, reading.source, answers]))
"""


def run_forks(fake, tmp_path, *methods):
    """A script on disk, because spawned children import the main module again."""
    script = tmp_path / "forks.py"
    script.write_text(textwrap.dedent(FORKS))
    arguments = ["forks.py", *methods]
    code = f"import runpy, sys; sys.argv = {arguments!r}; runpy.run_path({str(script)!r}, run_name='__main__')"
    return run_python(code, fake)


def test_forked_and_spawned_children_emit_nothing_and_leave_the_parent_intact(driver, tmp_path):
    fake = driver()
    done = run_forks(fake, tmp_path, "fork", "spawn")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1, "a child printed something"
    begin, end, joules, ci95, reason, source, (forked, *others) = json.loads(done.stdout)
    assert source == "nvml:counter", f"the parent's window suffered: {reason}"
    assert joules == pytest.approx(fake.joules(begin, end), abs=2 * ci95 + 0.02 * joules)
    assert forked[0] == "X"
    assert "forked" in forked[1]
    assert others == [[], []], "a child runs a sampler of its own"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 says so at every fork
def test_os_fork_in_the_middle_of_a_window(driver):
    fake = driver()

    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    reading, truth = measure(fake, 0.6, during=fork)
    assert_right(reading, truth)
