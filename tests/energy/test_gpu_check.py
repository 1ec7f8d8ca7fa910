"""The meter's own test, on the compiled fake driver: sound cards pass, and each fault gets the verdict it deserves."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import threading
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pynvml
import pytest

from benchmark.energy import find_device
from benchmark.energy.acceptance import trials
from benchmark.energy.acceptance.trials import Durations, Trial, judge
from benchmark.energy.acceptance.verdicts import examine
from benchmark.energy.meters.neighbours import arriving
from scripts import gpu_check
from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

REST_W, LOAD_W, STEP_S, COLD_W = 20.0, 300.0, 0.01, 100.0
QUICK = Durations(0.4, 0.3, 0.1, 0.1, 0.4, 0.2, 0.3, pairs=3, windows=3)
TICK = {"tick_s": 0.02, "tick_phase_s": 0.007, "power_period_s": 0.02, "instant_window_s": 0.02}


class Load:
    """Steps of a hundredth of a second: what the card draws is planned ahead, so a busy machine changes no energy."""

    def __init__(self, driver: FakeDriver, name: str, watts: float = LOAD_W) -> None:
        self.driver, self.name, self.watts, self.rest_w = driver, name, watts, REST_W
        self.grows = self.per_step = self.slower = 0.0
        self.cold_steps = 0

    def work(self, steps: int) -> None:
        sampled = any(thread.name == "energy-sampler" for thread in threading.enumerate())
        begin_s = self.driver.now_s()
        end_s = begin_s + steps * STEP_S * (1 + self.slower * sampled)
        cold = min(self.cold_steps, steps)
        self.cold_steps -= cold
        self.driver.plan(begin_s, self.watts + self.per_step * steps + COLD_W * cold / steps)
        self.driver.plan(end_s, self.rest_w)
        self.watts += self.grows
        time.sleep(max(0.0, end_s - self.driver.now_s()))


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """Makes a trial of a fake card: trial(**settings) -> (trial, driver, its loads)."""
    installed = []

    def start(**settings):
        monkeypatch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
        monkeypatch.setattr("benchmark.energy.meters.neighbours._ARRIVALS", {})
        monkeypatch.setenv("ENERGY_LOCK_DIR", str(tmp_path))  # the lock of this card is ours alone
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        rest_w = settings.pop("rest_w", REST_W)
        driver = FakeDriver(shared_library(), Curve("steps", lo_w=rest_w), **(TICK | settings))
        installed.append(driver.__enter__())
        loads = {name: Load(driver, name) for name in ("matmul", "conv training", "memory copy")}
        loads["idle"] = Load(driver, "idle", rest_w)
        for load in loads.values():
            load.rest_w = rest_w
        return Trial(find_device("cuda:0"), loads, QUICK, {}, lambda: None), driver

    yield start
    for driver in installed:
        driver.__exit__()


def words(trial: Trial, *names: str) -> dict[str, str]:
    """{check: its word and text} of some checks."""
    return {verdict.check: f"{verdict.word} {verdict.text}" for verdict in examine(trial, names)}


@pytest.mark.slow
def test_a_sound_card_passes_from_end_to_end(trial, monkeypatch, tmp_path, capsys):
    made, _ = trial()
    monkeypatch.setattr(gpu_check, "torch_loads", lambda device: (made.loads, made.wait))
    monkeypatch.setattr(gpu_check, "Durations", lambda: QUICK)
    monkeypatch.setattr(gpu_check, "PROBE_S", 1.0)
    status = gpu_check.main(["--device", "cuda:0", "--results", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("FAIL")]
    assert status == 0
    assert lines[-1] == "PASS"
    sure = ("counter against trapezoid, matmul", "linearity", "additivity", "repeatability", "sanity", "alone")
    told = {line[9:].split(":")[0]: line.split()[0] for line in lines}
    assert {told[name] for name in sure} <= {"PASS", "INFO"}
    assert told["sanity"] == told["alone"] == "PASS"
    (path,) = (tmp_path / "devices").glob("*-gpu-check.json")
    found = json.loads(path.read_text())
    assert found["passed"] is True
    assert found["device"]["uuid"] == made.device.uuid
    assert found["created"]
    assert found["versions"]["python"]
    assert found["commit"]
    assert len(found["verdicts"]) == sum(line.split()[0] in ("PASS", "INFO", "SKIPPED") for line in lines[1:-1])
    assert all(reading["joules"] > 0 for reading in found["readings"])


@pytest.mark.slow
def test_a_failure_is_an_exit_status_and_stays_in_the_report(trial, monkeypatch, tmp_path, capsys):
    made, _ = trial(counter_gain=0.5)
    monkeypatch.setattr(gpu_check, "torch_loads", lambda device: (made.loads, made.wait))
    monkeypatch.setattr(gpu_check, "Durations", lambda: QUICK)
    monkeypatch.setattr(gpu_check, "PROBE_S", 0.0)
    assert gpu_check.main(["--results", str(tmp_path), "--only", "counter"]) == 1
    assert "FAIL: counter against trapezoid, matmul" in capsys.readouterr().out
    (path,) = (tmp_path / "devices").glob("*-gpu-check.json")
    assert json.loads(path.read_text())["passed"] is False


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_check.main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("skipped: no GPU here (nvml: ")
    assert len(out.splitlines()) == 1


def test_a_counter_that_shows_half_fails(trial):
    made, _ = trial(counter_gain=0.5)
    found = words(made, "counter")
    assert found["counter against trapezoid, matmul"].startswith("FAIL +")
    assert found["counter against trapezoid, memory copy"].startswith("FAIL")


def test_work_that_costs_more_each_time_is_not_repeatable(trial):
    made, _ = trial()
    made.loads["matmul"].grows = 60.0
    made.durations = replace(QUICK, windows=6)
    assert words(made, "repeatability")["repeatability"].startswith("FAIL")


@pytest.mark.slow
def test_a_load_that_is_no_line_fails(trial):
    made, _ = trial()
    made.loads["matmul"].per_step = 3.0
    assert words(made, "linearity")["linearity"].startswith("FAIL E(2N)/E(N) is 2.")


@pytest.mark.parametrize("change", [pytest.param({"grows": 6.0}, marks=pytest.mark.slow), {"cold_steps": 60}], ids=str)
def test_a_board_that_warms_up_is_still_a_line(trial, change):
    """A drift of 2 % a window, or a first half second that costs a third more: neither is the load's doing."""
    made, _ = trial()
    for name, value in change.items():
        setattr(made.loads["matmul"], name, value)
    verdict = examine(made, ["linearity"])[0]
    assert verdict.word == "PASS", verdict.text
    assert len(verdict.numbers["joules"]) == len(verdict.numbers["steps"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stale": "0"}, "stale"),
        pytest.param({"lost": "0.3"}, "lost", marks=pytest.mark.slow),
        pytest.param({"garbage": "0.3"}, "all ones", marks=pytest.mark.slow),
        pytest.param({"fail": "*:999@0.3"}, "", marks=pytest.mark.slow),
    ],
)
def test_a_meter_that_breaks_fails_with_its_reason_and_stops_no_check(trial, settings, said):
    made, _ = trial(**settings)
    found = words(made, "repeatability", "additivity")
    assert len(found) == 2
    for text in found.values():
        assert text.startswith("FAIL")
        assert said in text


@pytest.mark.slow
def test_without_a_counter_what_rests_on_it_is_skipped_and_the_rest_is_done(trial):
    made, _ = trial(arch=4)
    found = words(made, "counter", "additivity", "sanity")
    assert found["counter against trapezoid, matmul"].startswith("SKIPPED no energy counter: nvml:samples, grade C")
    assert not any(text.startswith("FAIL") for text in found.values()), found


@pytest.mark.parametrize(
    "settings", [{"rest_w": 400.0}, {"power_limit_w": 200}], ids=["idle above load", "above limit"]
)
def test_power_that_cannot_be_is_insane(trial, settings):
    made, _ = trial(**settings)
    found = words(made, "repeatability", "idle", "sanity")
    assert found["sanity"].startswith("FAIL loads draw ")


def test_a_foreign_process_is_a_failure(trial):
    made, _ = trial(processes="self:100,1:300")
    assert words(made, "idle", "alone")["alone"] == "FAIL foreign processes computed on the GPU: [1]"


def test_a_process_that_was_there_before_us_is_told_and_is_no_failure(trial):
    made, driver = trial(processes="4194321:100")
    with arriving(made.device):
        driver.set(processes="4194321:100,4194322:100")
    said = words(made, "idle", "alone")["alone"]
    assert said == "PASS no foreign process was seen; there before our context: [4194321]"
    driver.set(processes="4194321:100,4194322:100,4194323:100")
    assert words(made, "idle", "alone")["alone"].startswith("FAIL foreign processes computed on the GPU: [4194323]")


def test_aliasing_is_flagged_where_the_sensor_is_half_blind(trial, monkeypatch):
    made, _ = trial(power_period_s=0.1, instant_window_s=0.025)
    assert words(made, "aliasing")["aliasing"].startswith("PASS flagged, the sensor sees 25% of the time")
    made.facts = {"power_fields": {"power.instant": {"period_ms": 25.0}}}
    assert words(made, "aliasing")["aliasing"].startswith("PASS not flagged, the sensor sees 100% of the time")
    made.facts = {}
    for user in ("judge.evaluate", "judge.facts"):
        monkeypatch.setattr(f"benchmark.energy.{user}.is_aliased", lambda *_: 0)
    assert words(made, "aliasing")["aliasing"].startswith("FAIL not flagged")


@pytest.mark.slow
def test_a_tracer_that_slows_the_work_fails(trial):
    made, _ = trial()
    made.loads["conv training"].slower = 4.0  # far above what a busy machine adds by itself
    assert words(made, "overhead")["overhead"].startswith(("FAIL", "INFO"))
    first = examine(made, ["overhead"])[0]
    assert first.word == "FAIL", first.text


def test_a_check_that_breaks_off_is_a_failure_of_its_own(trial):
    made, _ = trial()

    def broken(steps: int) -> None:
        raise RuntimeError("out of memory")

    made.loads["matmul"].work = broken
    found = words(made, "linearity", "idle")
    assert found["linearity"] == "FAIL broke off: RuntimeError: out of memory"
    assert found["idle"].startswith("INFO")


@pytest.mark.parametrize(("gain", "word"), [(1.0, "PASS"), (0.5, "FAIL")])
@pytest.mark.slow
def test_zeus_is_compared_where_it_is_installed(trial, monkeypatch, gain, word):
    """A stand-in with Zeus's interface: two reads of the counter."""
    made, _ = trial()

    class Monitor:
        def __init__(self, gpu_indices: list[int]) -> None:
            assert gpu_indices == [0]
            pynvml.nvmlInit()
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)

        def read(self) -> float:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000

        def begin_window(self, name: str, sync_execution: bool) -> None:
            self.begun = self.read()

        def end_window(self, name: str, sync_execution: bool) -> SimpleNamespace:
            return SimpleNamespace(total_energy=gain * (self.read() - self.begun))

    module = ModuleType("zeus.monitor")
    module.ZeusMonitor = Monitor
    package = ModuleType("zeus")
    package.__spec__ = importlib.machinery.ModuleSpec("zeus", None)
    monkeypatch.setitem(sys.modules, "zeus", package)
    monkeypatch.setitem(sys.modules, "zeus.monitor", module)
    made.durations = Durations(idle_s=1.2)
    made.facts = {"counter_tick_ms": 20.0}
    assert words(made, "zeus")["ours against Zeus"].startswith(word)


def test_without_zeus_it_is_skipped(trial, monkeypatch):
    made, _ = trial()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert words(made, "zeus")["ours against Zeus"].startswith("SKIPPED zeus is not installed")


def test_a_limit_fails_only_beyond_its_uncertainty():
    assert judge(0.009, 0.5, 0.01) == "PASS"
    assert judge(-0.02, 0.005, 0.01) == "FAIL"
    assert judge(0.02, 0.015, 0.01) == "INFO"
    assert judge(float("nan"), 0.0, 0.01) == "FAIL"


def test_an_intercept_comes_with_its_interval():
    x = [1.0, 2.0, 3.0, 5.0, 10.0]
    exact, none = trials._intercept(x, [7 + 2 * value for value in x])
    assert (exact, none) == (pytest.approx(7), pytest.approx(0, abs=1e-6))
    scattered, some = trials._intercept(
        x, [2 * value + error for value, error in zip(x, (0.1, -0.1, 0.1, -0.1, 0), strict=True)]
    )
    assert abs(scattered) < some < 1
