"""Compares Zeus, CodeCarbon and this suite's tracer on one fake GPU of known energy, also when something breaks.

    python scripts/peers.py > table.md        (in an environment that has zeus and codecarbon: make test-peers)

Every scenario starts three new processes, one for each tool, that see the same fake driver at the same time. Each tool
opens its window, sleeps, closes the window, and returns the joules it would report and all its warnings. The truth is
the closed-form integral of the fake card's power over the time in which that tool's window was open.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.energy.fake_nvml import Curve, FakeDriver, build, why_not  # noqa: E402 (a script finds the repository itself)

TOOLS = ("zeus", "codecarbon", "ours")
LEADS_S = (
    8.0,
    16.0,
    32.0,
    48.0,
)  # time for imports and set-up; the next value is tried if a tool was too late on a busy machine
BEGIN_S = 0.5  # the windows open here, in seconds since the driver's t0
WINDOW_S = 4.06  # no multiple of the tick, so that its rounding shows
AT_ONCE = 2  # scenarios side by side; they sleep most of the time
TICKS: dict[str, object] = {"tick_s": 0.1, "tick_phase_s": 0.03}
SQUARE = Curve("square", lo_w=100, hi_w=300, period_s=0.7)
STEADY = Curve(lo_w=200, hi_w=200)
UNRELATED = ("AMD", "CPU", "Multiple instances", "amdsmi")  # set-up messages about other hardware


@dataclass(frozen=True)
class Scenario:
    """One thing that can be wrong (or nothing), as settings of the fake driver."""

    name: str
    curve: Curve = SQUARE
    settings: dict[str, object] = field(default_factory=dict)
    window_s: float = WINDOW_S
    broken: bool = True


@dataclass(frozen=True)
class Outcome:
    """The report of one tool: joules (NaN where it gave no number), the truth, its warnings, its own grade."""

    tool: str
    joules: float
    true_joules: float
    said: tuple[str, ...]
    trust: str = ""
    ci95_joules: float = math.nan

    @property
    def error(self) -> float:
        """Relative error against the truth."""
        return self.joules / self.true_joules - 1


PASCAL: dict[str, object] = {"arch": 4, "power_period_s": 0.02, "instant_window_s": 0.01, "average_window_s": 0.01}

SCENARIOS = (
    Scenario("nothing broken, constant 200 W", STEADY, broken=False),
    Scenario("nothing broken, square 100/300 W", broken=False),
    Scenario("nothing broken, sine 60/400 W", Curve("sine", lo_w=60, hi_w=400, period_s=1.3), broken=False),
    Scenario("driver reload in mid-window: counter starts again at 0", settings={"reset": 2.5}),
    Scenario("GPU lost in mid-window for good", settings={"lost": "2.5"}),
    Scenario("GPU lost for 1 s, then back", settings={"lost": "2/3"}),
    Scenario("GPU lost for 1 s, back with its counter at 0", settings={"lost": "2/3", "reset": 2.5}),
    Scenario("counter stale from mid-window on", settings={"stale": "2.5"}),
    Scenario("counter stale all the time", settings={"stale": "0"}),
    Scenario("counter reads all ones at the end", settings={"garbage": "4.2/5.5"}),
    Scenario("counter says half of what the power sensor says", settings={"counter_gain": 0.5}, window_s=5.56),
    Scenario("window of 30 ms, tick 100 ms", window_s=0.03),
    Scenario("no energy counter (Pascal), square 100/300 W", settings=PASCAL),
    Scenario("no energy counter (Pascal), constant 60 W", Curve(lo_w=60, hi_w=60), PASCAL),
    Scenario("no energy counter, every third power reading 0 mW", settings=PASCAL | {"zero_every": 3}),
    Scenario("no energy counter, GPU lost for 1 s", settings=PASCAL | {"lost": "2/3"}),
    Scenario("every driver call takes 0.2 s", settings={"slow": "*:0.2"}),
    Scenario("a foreign process computes on the GPU", settings={"processes": "1:4000"}),
    Scenario("the card is split (MIG)", settings={"mig": 2, "fail": "nvmlDeviceGetTotalEnergyConsumption:3"}),
)


# ---- in the worker: one tool, one window ----------------------------------------------------------------------


class Listener(logging.Handler):
    """Keeps every warning of a process, whether it was logged or warned."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = " ".join(record.getMessage().split())
        words = re.sub(r"^\S+:\d+: (\w+Warning: )", r"\1", words)  # leave out the path of a warning's source
        if words not in self.said and not any(word in words for word in UNRELATED):
            self.said.append(words)


@contextmanager
def _zeus() -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Any]]]]:
    try:
        monitor = import_module("zeus.monitor").ZeusMonitor(cpu_indices=[])
    except RuntimeError as error:
        if "failed to start within" in str(error):  # its polling processes get ten seconds: this machine is slow
            raise TimeoutError from error
        raise

    def close() -> dict[str, Any]:
        return {"joules": monitor.end_window("window", sync_execution=False).total_energy}

    yield lambda: monitor.begin_window("window", sync_execution=False), close


@contextmanager
def _codecarbon() -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Any]]]]:
    tracker = import_module("codecarbon").OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, measure_power_secs=1
    )
    logging.getLogger("codecarbon").addHandler(LISTENER)
    tracker.get_detected_hardware()  # its slow set-up happens here, before the window

    def close() -> dict[str, Any]:
        tracker.stop()
        return {"joules": tracker.final_emissions_data.gpu_energy * 3.6e6}

    yield tracker.start, close


@contextmanager
def _ours() -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Any]]]]:
    from benchmark.energy import EnergyTracer, find_device

    window = EnergyTracer(find_device("cuda:0")).window("window")

    def close() -> dict[str, Any]:
        window.__exit__(None, None, None)
        reading = window.reading
        strangers = reading.provenance.get("foreign_pids")
        notes = [reading.reason] if reading.reason else []
        notes += [f"foreign processes {strangers}"] if strangers else []
        trust = f"grade {reading.grade}" + "".join(f": {note}" for note in notes)
        return {"joules": reading.joules, "trust": trust, "ci95_joules": reading.ci95_joules}

    def begin() -> None:
        window.__enter__()

    yield begin, close


LISTENER = Listener()
OPENERS = {"zeus": _zeus, "codecarbon": _codecarbon, "ours": _ours}


def work(tool: str, begin_s: float, window_s: float) -> dict[str, Any]:
    """Run one tool's window and return its report; a failure of the tool is a report too."""
    logging.captureWarnings(True)
    logging.getLogger().addHandler(LISTENER)
    answer: dict[str, Any] = {"tool": tool, "joules": math.nan, "trust": "", "ci95_joules": math.nan, "late": False}
    answer |= {"begin_s": begin_s, "end_s": begin_s + window_s}
    try:
        with OPENERS[tool]() as (begin, close):
            if time.monotonic() > begin_s:
                raise TimeoutError
            time.sleep(begin_s - time.monotonic())
            begin()
            answer["begin_s"] = time.monotonic()
            time.sleep(window_s)
            answer["end_s"] = time.monotonic()
            answer |= close()
    except TimeoutError:
        return answer | {"late": True, "said": [], "trust": "was not ready in time on this busy machine"}
    except Exception as error:  # a user of the tool would see this exception
        answer["trust"] = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    return answer | {"said": LISTENER.said}


# ---- in the parent: all tools, all scenarios ----------------------------------------------------------------------


def play(scenario: Scenario, library: Path, tools: Sequence[str] = TOOLS) -> list[Outcome]:
    """One scenario with every tool at the same time, each in a process of its own."""
    for lead_s in LEADS_S:
        driver = FakeDriver(library, scenario.curve, **(TICKS | scenario.settings))
        driver.t0_s = time.monotonic() + lead_s - BEGIN_S
        answers = _answers(driver, scenario, tools)
        if not any(answer["late"] for answer in answers):
            break
        print(f"'{scenario.name}': a tool was not ready after {lead_s} s", file=sys.stderr)
    return [_outcome(driver, answer) for answer in answers]


def _answers(driver: FakeDriver, scenario: Scenario, tools: Sequence[str]) -> list[dict[str, Any]]:
    """Start one worker for each tool and collect what they print."""
    environment = os.environ | driver.environment()
    environment["PATH"] = f"{driver.library.parent}{os.pathsep}{environment['PATH']}"
    words = [str(driver.t0_s + BEGIN_S), str(scenario.window_s)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([sys.executable, __file__, "--worker", tool, *words], **pipes) for tool in tools]
    answers = []
    for tool, process in zip(tools, processes, strict=True):
        out, err = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"{tool} in '{scenario.name}':\n{err}")
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


def _outcome(driver: FakeDriver, answer: dict[str, Any]) -> Outcome:
    true_joules = driver.joules(answer["begin_s"], answer["end_s"])
    said = tuple(answer["said"])
    return Outcome(answer["tool"], answer["joules"], true_joules, said, answer["trust"], answer["ci95_joules"])


def prepare(directory: Path) -> Path:
    """Build the fake library, and the nvidia-smi that CodeCarbon looks for before it asks NVML."""
    library = build(directory)
    stub = directory / "nvidia-smi"
    stub.write_text("#!/bin/sh\nexit 0\n")
    stub.chmod(0o755)
    return library


def play_all(scenarios: Sequence[Scenario] = SCENARIOS, at_once: int = AT_ONCE) -> list[tuple[Scenario, list[Outcome]]]:
    """Every scenario, `at_once` at a time."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(at_once) as pool:
        library = prepare(Path(directory))
        outcomes = list(pool.map(lambda scenario: play(scenario, library), scenarios))
    return list(zip(scenarios, outcomes, strict=True))


def cell(outcome: Outcome, longest: int = 110) -> str:
    """One tool's answer for the table: joules, error, and what it said about it."""
    words = [outcome.trust] if outcome.trust else []
    words += list(outcome.said) or (["silent"] if outcome.tool != "ours" and not outcome.trust else [])
    short = "; ".join(word if len(word) <= longest else word[: longest - 1] + "…" for word in words[:2])
    error = f"{outcome.error:+.1%}" if abs(outcome.error) < 10 else f"{outcome.error:+.0%}"
    number = "no number" if math.isnan(outcome.joules) else f"**{outcome.joules:.1f}** ({error})"
    return f"{number} {short}".replace("|", "/")


def table(played: Sequence[tuple[Scenario, list[Outcome]]]) -> str:
    """A markdown table of all scenarios. The truths differ a little, because the tools' windows opened some ms
    apart."""
    lines = ["| scenario | true J | Zeus | CodeCarbon | ours |", "|---|---|---|---|---|"]
    for scenario, outcomes in played:
        truth = f"{outcomes[-1].true_joules:.1f}"
        lines.append(f"| {scenario.name} | {truth} | " + " | ".join(cell(outcome) for outcome in outcomes) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the table, or run as one of its worker processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=3, metavar=("TOOL", "BEGIN_S", "WINDOW_S"), help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="play only the scenarios whose name contains this")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="scenarios side by side; 1 on a busy machine")
    options = parser.parse_args(arguments)
    if options.worker:
        tool, begin_s, window_s = options.worker
        print(json.dumps(work(tool, float(begin_s), float(window_s))))
        return 0
    if why_not():
        print(f"skipped: {why_not()}")
        return 0
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    print(table(play_all(chosen, options.at_once)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
