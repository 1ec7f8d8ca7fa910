"""`device --compare`: other tools around the same work, whatever they do; two calculators; the command."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
import types
import warnings
from dataclasses import replace

import pytest

from benchmark.__main__ import main
from benchmark.comparing import WIDE, lines
from benchmark.energy import find_device
from benchmark.run.peers import carbontracker, eco2ai, side_by_side
from benchmark.run.peers.formulas import (
    Facts,
    emissions_calculator,
    emissions_calculator_wh,
    facts_of,
    green_algorithms,
    green_algorithms_wh,
    listed_w,
)
from benchmark.run.peers.guard import LONGEST_REASON, guarded, quiet
from benchmark.run.peers.told import Peer, Told

CPU = find_device("cpu")
GPU = replace(CPU, kind="cuda", torch_name="cuda:0", name="NVIDIA H200", power_limit_w=700.0)


# --- the calculators -------------------------------------------------------------------------------------------------


def test_the_formula_of_green_algorithms_by_hand():
    """Half an hour of 24 W of cores and 16 GB (5.96 W) in a building of PUE 1.67: 0.5 x 29.96 x 1.67."""
    assert green_algorithms_wh(1800, 24, 16) == pytest.approx(25.0166)
    assert green_algorithms_wh(3600, 0, 1, pue=1) == pytest.approx(0.3725)


def test_the_formula_of_the_emissions_calculator_by_hand():
    assert emissions_calculator_wh(1800, 250) == pytest.approx(125.0)


def test_green_algorithms_counts_the_cores_in_use_and_the_gpu_whole():
    told = green_algorithms(Facts(CPU, 3600, 0.5, 4, 32))
    assert told.wh == pytest.approx((4 * 12 * 0.5 + 32 * 0.3725) * 1.67)
    assert told.estimate
    assert "4 cores x 12 W ('Any') x 0.50 in use + 32.0 GB x 0.3725 W" in told.how
    assert green_algorithms(Facts(GPU, 3600, 0.5, 4, 32)).wh == pytest.approx(told.wh + 700 * 1.67)


def test_a_rated_power_that_nobody_knows_is_no_number():
    for told in (
        green_algorithms(Facts(replace(GPU, power_limit_w=None), 60, 1, 2, 8)),
        emissions_calculator(Facts(replace(GPU, power_limit_w=None), 60, 1, 2, 8)),
        emissions_calculator(Facts(replace(CPU, name="AMD EPYC"), 60, 1, 2, 8)),
    ):
        assert math.isnan(told.wh), told
        assert told.why


def test_the_emissions_calculator_takes_the_power_limit_or_a_cpu_that_it_lists():
    assert emissions_calculator(Facts(GPU, 60, 1, 2, 8)).wh == pytest.approx(700 / 60)
    assert listed_w("Intel(R) Xeon(R) CPU E5-2630 v4 @ 2.20GHz") == 85
    assert listed_w("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz") == 150
    assert listed_w("AMD EPYC 7763 64-Core Processor") == 280
    assert listed_w("AMD EPYC 7551") is None


def test_facts_are_those_of_this_machine_and_no_core_is_busier_than_whole():
    facts = facts_of(CPU, 10.0, 5.0 * (os.cpu_count() or 1))
    assert facts.usage == pytest.approx(0.5)
    assert facts.memory_gb > 0.1
    assert facts_of(CPU, 1.0, 1e6).usage == 1.0


# --- strangers -------------------------------------------------------------------------------------------------------


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: _raise(ValueError("no\x1b[31m driver\nhere")), "did not start: ValueError: no?[31m driver here"),
        (lambda: sys.exit(70), "did not start: SystemExit: 70"),
        (lambda: time.sleep(2), "did not start within 0.1 s, and was left behind"),
    ],
)
def test_what_a_tool_does_wrong_is_its_reason(call, reason):
    assert guarded("start", call, 0.1) == (None, reason)


def test_a_long_story_is_cut():
    _, why = guarded("load", lambda: _raise(ValueError("x" * 5000)))
    assert why.endswith("...")
    assert len(why) <= LONGEST_REASON + len("did not load: ")


def test_nothing_a_tool_writes_gets_out_and_everything_is_as_before_after_it(capfd):
    handler = None
    with quiet():
        sys.stdout.write("printed\n")
        os.write(1, b"written")
        os.write(2, b"written")
        subprocess.run(["sh", "-c", "echo child; echo child >&2"], check=True)
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger("stranger").addHandler(handler)
        logging.getLogger("stranger").critical("logged")
        warnings.warn("warned", UserWarning, stacklevel=1)
    logging.getLogger("stranger").critical("later")  # its handler still holds what was standard error then
    logging.getLogger("stranger").removeHandler(handler)
    sys.stdout.write("mine\n")
    os.write(2, b"mine, too")
    out, err = capfd.readouterr()
    assert out == "mine\n"
    assert err == "mine, too"


def test_output_comes_back_after_an_exception(capfd):
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    sys.stdout.write("here\n")
    assert capfd.readouterr().out == "here\n"
    assert logging.root.manager.disable == 0


# --- side by side ----------------------------------------------------------------------------------------------------

SEQUENCE: list[str] = []


def _peer(name, prepare=None, start=None, stop=None, module="json"):
    """A tool that does as it is told in each of its steps, and notes when."""

    def stopping():
        SEQUENCE.append(f"stop {name}")
        return stop() if stop else (1.5, "reads tea leaves")

    def starting():
        SEQUENCE.append(f"start {name}")
        if start:
            start()
        return stopping

    def preparing(folder):
        assert folder.is_dir()
        sys.stdout.write(f"{name} says hello\n")
        if prepare:
            prepare()
        return starting

    return Peer(name, f"no-such-{name}", module, "by a fake", preparing)


@pytest.fixture(scope="module")
def told():
    SEQUENCE.clear()
    said: list[str] = []
    hang = threading.Event()
    peers = [
        _peer("outer"),
        _peer("absent", module="no_such_module_at_all"),
        _peer("unloadable", prepare=lambda: _raise(ImportError("cannot import name 'x'"))),
        _peer("crashing", start=lambda: _raise(RuntimeError("no permission"))),
        _peer("exiting", stop=lambda: sys.exit(1)),
        _peer("hanging", start=lambda: hang.wait(30)),
        _peer("printing", start=lambda: sys.stdout.write("look at me\n"), stop=lambda: (2.0, "loud\x07")),
        _peer("nan", stop=lambda: (math.nan, "")),
        _peer("negative", stop=lambda: (-5.0, "")),
        _peer("zero", stop=lambda: (0.0, "")),
        _peer("inner"),
    ]
    rows = side_by_side.compare(CPU, 0.2, said.append, peers, patience_s=0.5)
    hang.set()
    assert said == [f"training ResNet-20 for 0.2 s on {CPU.name}, under {len(peers)} tools and ours"]
    return {row.tool: row for row in rows}


def test_ours_comes_first_with_an_energy_that_says_what_it_is(told):
    ours = next(iter(told.values()))
    assert ours.tool == side_by_side.OURS
    assert ours.wh > 0
    assert ours.seconds >= 0.2
    assert ours.estimate == ("estimate:" in ours.how)


def test_tools_that_work_are_nested_around_ours(told):
    assert told["outer"].wh == told["inner"].wh == 1.5
    assert told["outer"].how == "reads tea leaves"
    assert told["outer"].seconds >= told["inner"].seconds >= told[side_by_side.OURS].seconds
    assert told["inner"].mean_w == pytest.approx(1.5 * 3600 / told["inner"].seconds)
    assert SEQUENCE[0] == "start outer"
    assert SEQUENCE.index("start inner") < SEQUENCE.index("stop inner") < SEQUENCE.index("stop outer")


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("absent", "not installed: pip install 'full-cycle-energy-benchmark[compare]'"),
        ("unloadable", "did not load: ImportError: cannot import name 'x'"),
        ("crashing", "did not start: RuntimeError: no permission"),
        ("exiting", "did not stop: SystemExit: 1"),
        ("hanging", "did not start within 0.5 s, and was left behind"),
        ("nan", "it reported nan W h, which is no energy"),
        ("negative", "it reported -5.0 W h, which is no energy"),
    ],
)
def test_a_tool_that_fails_has_no_number_and_its_reason(told, tool, reason):
    assert math.isnan(told[tool].wh)
    assert told[tool].why == reason


def test_zero_stands_with_a_doubt_and_odd_letters_do_not(told):
    assert told["zero"].wh == 0
    assert told["zero"].why.startswith("zero: ")
    assert told["zero"].how == "by a fake"
    assert told["printing"].how == "loud?"


def test_the_calculators_come_last_with_the_time_of_the_work(told):
    *_, green, calculator = told.values()
    assert (green.tool, calculator.tool) == ("Green Algorithms", "ML CO2 calculator")
    assert green.seconds == told[side_by_side.OURS].seconds
    assert green.wh > 0


def test_an_estimate_is_marked_in_the_table_and_a_measurement_is_not():
    measured = Told("ours", "1", 0.5, "by a counter", seconds=60.0, estimate=False)
    table = "\n".join(lines([measured, replace(measured, estimate=True), Told("none", "-", math.nan, "x", "it hung")]))
    assert "     0.5000     60.0    30.00\n" in table
    assert "    ~0.5000     60.0   ~30.00\n" in table
    assert table.endswith("          -        -        -\n    none: it hung")


def test_no_line_of_the_table_is_wider_than_it_should_be(told):
    wordy = replace(told["outer"], how="many words " * 40)
    assert max(map(len, lines([*told.values(), wordy]))) <= WIDE


# --- the adapters, on fakes of what they call -------------------------------------------------------------------------


@pytest.fixture
def modules(monkeypatch):
    def give(**named):
        for name, content in named.items():
            monkeypatch.setitem(sys.modules, name.replace("__", "."), types.SimpleNamespace(**content))

    return give


def test_eco2ai_is_asked_before_it_forgets_and_its_settings_stay(modules, tmp_path):
    kept = {"file_name": "mine.csv"}

    class Tracker:
        _cpu = types.SimpleNamespace(cpu_num=lambda: 1, tdp=lambda: 120.0)
        _gpu = types.SimpleNamespace(is_gpu_available=False)

        def __init__(self, **given):
            kept.update(file_name=given["file_name"])
            self.kwh = 0.0

        def consumption(self):
            return self.kwh

        def _write_to_csv(self, add_new=False):
            raise TypeError("beside pandas 3")

        def start(self):
            self.kwh = 0.001

        def stop(self):
            self.kwh = 0.002
            self._write_to_csv(False)
            self.kwh = 0

    modules(eco2ai={"Tracker": Tracker}, eco2ai__utils={"get_params": kept.copy, "set_params": kept.update})
    stop = eco2ai.PEER.prepare(tmp_path)()
    assert stop()[0] == pytest.approx(2.0)
    assert kept == {"file_name": "mine.csv"}


@pytest.mark.parametrize("readings", [[[60.0]], [[]], []])
def test_carbontracker_without_a_reading_tells_no_energy(modules, tmp_path, readings):
    part = types.SimpleNamespace(name="cpu", devices=lambda: ["a CPU"], handler=object(), power_usages=readings)
    thread = types.SimpleNamespace(
        components=[part],
        epoch_start=lambda: None,
        epoch_end=lambda: None,
        stop=lambda: None,
        total_energy_per_epoch=lambda: types.SimpleNamespace(sum=lambda: 0.003),
    )
    modules(
        carbontracker__tracker={"CarbonTrackerThread": lambda **given: thread},
        carbontracker__components__component={"create_components": lambda **given: [part]},
        carbontracker__loggerutil={"Logger": lambda **given: None},
        carbontracker__constants={"PUE_2023": 1.58},
    )
    stop = carbontracker.PEER.prepare(tmp_path)()
    if any(readings):
        wh, how = stop()
        assert wh == pytest.approx(3.0)
        assert "PUE of 1.58" in how
    else:
        with pytest.raises(RuntimeError, match="no reading"):
            stop()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_end_to_end(capfd):
    assert main(["device", "--compare", "--seconds=2", "hardware=cpu"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(f"device   {CPU.name} (cpu)")
    for tool in (side_by_side.OURS, "Green Algorithms", "ML CO2 calculator", *(p.tool for p in side_by_side.PEERS)):
        assert f"\n{tool}" in out
    assert err.startswith("training ResNet-20 for 2 s")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("word", ["--seconds=abc", "--seconds=0", "--seconds=nan", "--seconds=1e9", "--probe"])
def test_the_command_refuses_what_cannot_be_meant(word, capsys):
    assert main(["device", "--compare", word]) == 1
    assert capsys.readouterr().err.startswith("error: ")
