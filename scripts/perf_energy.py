"""The cost of measuring energy: ratios within one run, both sides in turns, with an A-against-A control.

    python scripts/perf_energy.py        (make perf)

It compares the sampler with running `nvidia-smi -q -x` and parsing its XML. Where there is no nvidia-smi, a program
that prints 33 kB of XML emulates it. It also measures the sampler's share of a core at 10 Hz, entering and leaving a
window, and importing the tracer. Where there is no GPU, the meter is the compiled fake driver. Exit status 1 where a
target is missed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmark.energy import Device, EnergyTracer, Options, find_device  # noqa: E402 - a script finds the repository itself
from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not  # noqa: E402 - same

ROUNDS = 15
SAMPLES = 50
XML_BYTES = 33_000
SHARE, CHEAPER, WINDOW_S, IMPORT_S = 0.003, 20.0, 1e-3, 0.1
SAMPLER_HZ, SAMPLER_S = 10, 4.0
IMPORT = (
    "import sys, time; start = time.process_time(); import benchmark.energy; cost = time.process_time() - start; "
    "print(cost, sum(name in sys.modules for name in ('torch', 'numpy', 'pandas')))"
)


@contextlib.contextmanager
def a_gpu() -> Iterator[tuple[Device, str]]:
    """A device with a counter, and its description: the machine's GPU, or else the fake one."""
    device = find_device("auto")
    if device.kind == "cuda":
        yield device, f"{device.name}, driver {device.driver}"
        return
    with FakeDriver(shared_library(), Curve("sine", lo_w=100, hi_w=300, period_s=0.7)):
        yield find_device("cuda:0"), "the compiled fake driver (no GPU here): its calls cost less than a real driver's"


@contextlib.contextmanager
def a_query() -> Iterator[tuple[list[str], str]]:
    """The command of the 2021 tracer, or a shell program that prints as much XML."""
    if shutil.which("nvidia-smi"):
        yield ["nvidia-smi", "-q", "-x"], "nvidia-smi -q -x"
        return
    with tempfile.TemporaryDirectory() as folder:
        xml, program = Path(folder) / "log.xml", Path(folder) / "smi"
        line = "    <power_readings><power_draw>123.45 W</power_draw></power_readings>\n"
        xml.write_text("<nvidia_smi_log>\n" + line * (XML_BYTES // len(line)) + "</nvidia_smi_log>\n")
        program.write_text(f"#!/bin/sh\nexec cat {xml}\n")
        program.chmod(0o755)
        yield [str(program)], f"a shell program that prints {XML_BYTES} bytes of XML (the real query takes far longer)"


def queried(command: Sequence[str]) -> float:
    """Watts as the 2021 tracer read them."""
    done = subprocess.run(command, capture_output=True, check=True)
    return float(next(ElementTree.fromstring(done.stdout).iter("power_draw")).text.split()[0])  # type: ignore[union-attr]  # every log has one


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds of one call by the wall clock, because a spawned program runs in another process."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def spread(values: Sequence[float], unit: str, factor: float) -> str:
    """Median and range."""
    low, middle, high = (factor * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.4g} {unit} ({low:.4g} to {high:.4g})"


def say(good: bool, text: str) -> bool:
    """Print one line with its verdict; returns the verdict."""
    print(f"{'PASS' if good else 'FAIL'}  {text}", flush=True)
    return good


def sample_against_query(device: Device) -> bool:
    """Compare one sample of the tracer with one query and its parsing, in turns; also the sample with itself."""
    tracer = EnergyTracer(device, synchronize=lambda: None, options=Options(period_s=60.0))
    ours, again, theirs = [], [], []
    with a_query() as (command, name), tracer, tracer.window("perf"):
        session = tracer._ledger._session
        assert session is not None, "a window is open"
        recorder = session.gpus[0][1]
        for _ in range(ROUNDS):
            ours.append(timed(recorder.sample, SAMPLES))
            theirs.append(timed(lambda: queried(command), 1))
            again.append(timed(recorder.sample, SAMPLES))
        ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
        control = [b / a for a, b in zip(ours, again, strict=True)]
    print(f"      a sample takes {spread(ours, 'us', 1e6)}; {name} and parsing {spread(theirs, 'ms', 1e3)}")
    print(f"      control, a sample against a sample: ratio {spread(control, '', 1)}")
    return say(
        statistics.median(ratios) >= CHEAPER, f"a query costs {spread(ratios, 'times', 1)} a sample; wanted {CHEAPER:g}"
    )


def sampler_share(device: Device) -> bool:
    """Measure the CPU time of the sampler's thread at 10 Hz, as a share of a core."""
    shares = []
    for _ in range(3):
        options = Options(period_s=1 / SAMPLER_HZ)
        with EnergyTracer(device, synchronize=lambda: None, options=options) as tracer, tracer.window("perf") as window:
            time.sleep(SAMPLER_S)
        shares.append(window.reading.provenance["overhead_s"] / window.reading.seconds)
    middle = statistics.median(shares)
    return say(middle <= SHARE, f"the sampler takes {spread(shares, '% of a core', 100)} at 10 Hz; wanted {SHARE:.1%}")


def window_cost(device: Device) -> bool:
    """Measure the CPU time of entering and leaving an empty window, in turns with a second series of the same."""
    costs: list[list[float]] = [[], []]
    with EnergyTracer(device, synchronize=lambda: None) as tracer, tracer.window("outer"):
        for number in range(4 * ROUNDS):
            start = time.process_time()  # of all threads: another one does it while this one waits
            with tracer.window("inner"):
                pass
            costs[number % 2].append(time.process_time() - start)
    ratio = statistics.median(costs[0]) / statistics.median(costs[1])
    print(f"      control, a window against a window: ratio of medians {ratio:.3f}")
    both = [*costs[0], *costs[1]]
    text = f"entering and leaving a window takes {spread(both, 'ms', 1e3)} of CPU time; wanted {1e3 * WINDOW_S:g}"
    return say(statistics.median(both) <= WINDOW_S, text)


def import_cost() -> bool:
    """Measure the CPU time of importing the tracer in a new process, and check that it imports no heavy package."""
    words = []
    with tempfile.TemporaryDirectory() as folder:
        # as when installed: the first process writes bytecode, the others use it
        compiled = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        for _ in range(8):
            command = [sys.executable, "-c", IMPORT]
            done = subprocess.run(command, cwd=ROOT, env=compiled, capture_output=True, check=True, text=True)
            words.append(done.stdout)
    costs = [float(word.split()[0]) for word in words[1:]]
    heavy = any(word.split()[1] != "0" for word in words)
    text = f"importing takes {spread(costs, 'ms', 1e3)} of CPU time; wanted {1e3 * IMPORT_S:g}, and no torch or numpy"
    return say(statistics.median(costs) <= IMPORT_S and not heavy, text)


def main() -> int:
    """Print the cost of measuring; returns the exit status."""
    if why_not() and find_device("auto").kind != "cuda":
        print(f"skipped: {why_not()}")
        return 0
    with a_gpu() as (device, name):
        print(f"energy tracer on {name}")
        kept = [sample_against_query(device), sampler_share(device), window_cost(device), import_cost()]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
