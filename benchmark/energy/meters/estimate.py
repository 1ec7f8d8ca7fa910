"""The estimate of last resort: CPU seconds of this process and its descendants times a share of the CPU's rated power.
Grade E."""

from __future__ import annotations

import math
import os
import resource
import time
from pathlib import Path

SOURCE = "estimate:tdp_load"
RELATIVE_SD = 0.40
"""Static TDP times load errs by up to 40 % against a wall meter; see docs/energy.md."""
ASSUMED_W_PER_CORE = 4.0
"""Rated watts per logical core when nobody says better: servers lie at 2 to 3, desktops at 4 to 6."""

_PROC = Path("/proc")


def cpu_name() -> str:
    """The CPU's model name as the kernel gives it, or 'unknown'."""
    try:
        for line in (_PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def virtualised() -> bool:
    """Whether the kernel says that it runs under a hypervisor."""
    try:
        return " hypervisor" in (_PROC / "cpuinfo").read_text()
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    """Live children of a process; empty where the kernel does not list them."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found.extend(int(word) for word in file.read().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> list[int]:
    """Every live process below `pid`."""
    found: list[int] = []
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting.extend(_children(child))
    return found


def _ticks_of(pid: int) -> int:
    """Clock ticks a process and its reaped children have used; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return sum(int(value) for value in fields[11:15])


def tree_cpu_seconds() -> float:
    """CPU seconds of this process, its reaped children and its live descendants."""
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(_ticks_of(pid) for pid in descendants(os.getpid()))
    return time.process_time() + reaped.ru_utime + reaped.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def busy_cpu_seconds() -> float:
    """CPU seconds that all processes of this computer used since it started: user, nice, system and interrupts, without
    idling, waiting for disks, or what a hypervisor gave to others. NaN where the kernel does not say.

    In a container the kernel often counts the whole computer: its other containers draw on the same package.
    """
    try:
        with open(_PROC / "stat", "rb") as file:
            fields = file.readline().split()
        user, nice, system, _, _, irq, softirq = (int(value) for value in fields[1:8])
    except (OSError, ValueError):
        return math.nan
    ticks = user + nice + system + irq + softirq
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else math.nan  # none at all: nobody counts (some sandboxes)


MOST_TDP_W = 100_000.0
"""No computer's processors are rated higher: what is, is a slip of the pen."""


def why_no_tdp(tdp_w: float | None) -> str:
    """Why a rated power cannot be meant; empty if it can."""
    if tdp_w is None or 0 < tdp_w <= MOST_TDP_W:
        return ""
    return f"cpu_tdp_w must be positive watts, at most {MOST_TDP_W:g}, not {tdp_w}"


class TdpLoad:
    """Joules so far = CPU seconds x rated watts / logical cores. A guess with a name: standard deviation 40 %."""

    grade = "E"
    tick_s = 0.01
    """The kernel counts other processes' CPU time in ticks of 10 ms."""
    relative_sd = RELATIVE_SD

    def __init__(self, tdp_w: float | None = None) -> None:
        self.cores = os.cpu_count() or 1
        self.assumed = tdp_w is None
        self.tdp_w = ASSUMED_W_PER_CORE * self.cores if tdp_w is None else float(tdp_w)
        why = why_no_tdp(tdp_w)
        if why:
            raise ValueError(why)
        # a number that rests on another assumption has another source: rows must not mix them unseen
        self.source = SOURCE if self.assumed else f"{SOURCE}@{self.tdp_w:g}w"
        self.cpu_s = 0.0
        """CPU seconds of this process and its descendants, the most that was read."""
        self.lost_s = 0.0
        """So many of them the last read did not find: a child that is reaped elsewhere takes its seconds with it."""

    def read(self) -> float:
        """Joules so far; never falls."""
        found = tree_cpu_seconds()
        self.cpu_s = max(self.cpu_s, found)
        self.lost_s = self.cpu_s - found
        return self.cpu_s * self.tdp_w / self.cores

    def describe(self) -> str:
        """The assumption in words, for the record."""
        how = f"assumed {ASSUMED_W_PER_CORE:g} W per logical core" if self.assumed else "given"
        return f"{self.tdp_w:g} W rated power ({how}) over {self.cores} logical cores"
