"""Common code of perf_*.py: interleaved measurements, an A-against-A control, and the format of printed ratios."""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

CONTROL = (0.95, 1.05)
"""The range in which the median of rival against rival must lie; otherwise do not quote the run."""


class Row(NamedTuple):
    """One line of the table: the target ratio, the rival's and our costs, and a second set of the rival's as control.

    Costs are paired: entry k of each list comes from the same round.
    """

    what: str
    target: float
    rival: Sequence[float]
    again: Sequence[float]
    ours: Sequence[float]
    unit: str


def cpu_s() -> float:
    """CPU-seconds of this process and of its finished children, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(r.ru_utime + r.ru_stime for r in used)


def interleave(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The costs that each side reports, once per round; every round draws a new order of the sides."""
    costs: dict[str, list[float]] = {name: [] for name in sides}
    order, dice = list(sides), random.Random(0)
    for _ in range(rounds):
        dice.shuffle(order)
        for name in order:
            costs[name].append(sides[name]())
    return costs


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median [least - greatest]."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} - {max(values):.{digits}f}]"


def ratios(rival: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times cheaper our side was, round by round."""
    return [a / b for a, b in zip(rival, ours, strict=True)]


def show(row: Row) -> None:
    """Print a row: ratio, control, costs, and whether it may be quoted."""
    gain, control = ratios(row.rival, row.ours), ratios(row.rival, row.again)
    reached = "reached" if statistics.median(gain) >= row.target else "MISSED"
    calm = CONTROL[0] <= statistics.median(control) <= CONTROL[1]
    print(f"{row.what}: {spread(gain)}x, target {row.target:g}x {reached}, n = {len(gain)}")
    print(f"    rival {spread(row.rival, 3)}, ours {spread(row.ours, 3)} {row.unit}")
    print(f"    rival against rival {spread(control)}{'' if calm else '  TOO NOISY: do not quote this row'}")


def machine() -> str:
    """The hardware and software that a number belongs to. Imports torch."""
    import torch

    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    words = [f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", f"Python {platform.python_version()}"]
    words += [f"torch {torch.__version__}", f"{torch.get_num_threads()} thread(s)"]
    if torch.cuda.is_available():
        words += [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
        words.append(f"tf32 conv {torch.backends.cudnn.allow_tf32} matmul {torch.backends.cuda.matmul.allow_tf32}")
    return ", ".join(words)


class Apart:
    """A side in its own process, so that the sides do not share an allocator, threads or switches.

    That process calls `make(*given)` once, which gives a function that returns a cost. Each call of this object runs
    that function once. The caller decides how the two sides alternate.
    """

    def __init__(self, make: Callable[..., Callable[[], float]], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, given), daemon=False)
        self._process.start()

    def __call__(self) -> float:
        self._pipe.send(True)
        cost: float = self._pipe.recv()
        return cost

    def close(self) -> None:
        """End the process."""
        self._pipe.send(False)
        self._process.join()


def _serve(pipe: Connection[Any, Any], make: Callable[..., Callable[[], float]], given: Sequence[Any]) -> None:
    work = make(*given)
    while pipe.recv():
        pipe.send(work())
