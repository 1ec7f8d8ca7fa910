"""Whose the compute processes on a board are: ours, of a foreign job, resident since before we came, or not to be told.

The driver lists pids. On a bare machine they are everybody's. In a container older drivers list the host's, which mean
nothing inside: our own stands there under a number that we cannot know, and any number may by chance be that of a
process in our own /proc; newer drivers translate, to a thread of ours at times. So: where the list names us, its pids
can be believed, and every other process in it is foreign, however long it has been there. Where it does not,
we learn our number by looking before and after we make our context; what was there before is resident (a monitor, a
display, a neighbour's idle session) and no job that disturbs this measurement more than that one before it; what comes
later is foreign.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmark.energy.meters import estimate
from benchmark.energy.meters.device import Device
from benchmark.energy.meters.nvml import Gpu, NvmlError, Slow


class Neighbours(NamedTuple):
    """Compute processes beside ours: pids of `foreign` jobs and of `resident` ones, and how many more are `hidden`:
    they may be ours, ended, or of a pid namespace that cannot be seen."""

    foreign: list[int]
    resident: list[int]
    hidden: int


@dataclass(frozen=True)
class _Arrival:
    """The pids on a board before this process made its context there, and those that came with it."""

    before: frozenset[int]
    own: frozenset[int]


_ARRIVALS: dict[tuple[int, str], _Arrival] = {}
"""By process and board: a forked child made no context."""


@contextlib.contextmanager
def arriving(device: Device) -> Iterator[None]:
    """Make this process's first context on a board inside: by what it changes we know our own pid there."""
    key = os.getpid(), device.uuid
    if device.gpu is None or key in _ARRIVALS:
        yield
        return
    before = _pids(device.gpu)
    yield
    _ARRIVALS[key] = _Arrival(before, _pids(device.gpu) - before)


def _pids(gpu: Gpu) -> frozenset[int]:
    try:
        return frozenset(gpu.slow().compute_pids)
    except NvmlError:
        return frozenset()


def neighbours(slows: Sequence[Slow], uuid: str = "") -> Neighbours:
    """Who else computed on the board with this UUID while these readings were taken."""
    seen = {pid for slow in slows for pid in slow.compute_pids}
    if seen <= {os.getpid()}:
        return Neighbours([], [], 0)
    arrival = _ARRIVALS.get((os.getpid(), uuid))
    before = arrival.before if arrival else frozenset()
    ours = {os.getpid(), *_threads(), *estimate.descendants(os.getpid())}
    if seen & ours - before:  # our number before we came was somebody else's, of another namespace
        others = seen - ours
        foreign = sorted(pid for pid in others if os.path.exists(f"/proc/{pid}"))
        return Neighbours(foreign, [], len(others) - len(foreign))
    if arrival is None:
        foreign = sorted(pid for pid in seen if os.path.exists(f"/proc/{pid}"))
        return Neighbours(foreign, [], max(0, len(seen) - len(foreign) - 1))  # one is ourselves
    later = seen - before - arrival.own
    resident = sorted(seen & before)
    if not arrival.own:  # we were not listed yet, or never are: one of those that came later may be ourselves
        return Neighbours([], resident, max(0, len(later) - 1))
    return Neighbours(sorted(later), resident, len(arrival.own) - 1)


def _threads() -> list[int]:
    """Our own threads: a driver that translates pids may name the one that made the context."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []
