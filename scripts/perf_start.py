"""The CPU time of commands of `python -m benchmark`, compared with importing torch. Takes about a minute.

usage: python scripts/perf_start.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

from perf_common import cpu_s, interleave, machine, ratios, spread

MODULE = ("-m", "benchmark")
LIMITS_S = {"--help": 0.08, "run --help": 0.8, "plan": 0.6}


def start(arguments: Sequence[str]) -> float:
    """CPU-seconds of one process. Raises CalledProcessError where it fails."""
    before = cpu_s()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return cpu_s() - before


def imports_torch(arguments: Sequence[str]) -> bool:
    """Whether the command imports torch."""
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    return any(line.rpartition("|")[2].strip() == "torch" for line in run.stderr.splitlines())


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    commands = {name: (*MODULE, *name.split()) for name in LIMITS_S}
    sides: dict[str, Callable[[], float]] = {name: partial(start, words) for name, words in commands.items()}
    sides["import torch"] = partial(start, ("-c", "import torch"))
    sides["import torch again"] = sides["import torch"]
    costs = interleave(sides, rounds)
    print(f"start, CPU-seconds, n = {rounds}")
    for name, limit in LIMITS_S.items():
        verdict = "reached" if statistics.median(costs[name]) <= limit else "MISSED"
        torch = "IMPORTS TORCH" if imports_torch(commands[name]) else "no torch"
        gain = spread(ratios(costs["import torch"], costs[name]), 1)
        print(
            f"{name}: {spread(costs[name], 3)} s, limit {limit} s {verdict}, {torch}; import torch costs {gain}x that"
        )
    control = spread(ratios(costs["import torch"], costs["import torch again"]))
    print(f"import torch: {spread(costs['import torch'], 3)} s, against itself {control}")
    print(machine())


if __name__ == "__main__":
    main()
