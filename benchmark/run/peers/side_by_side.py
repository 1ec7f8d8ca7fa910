"""Runs other energy tools and our tracer around one and the same work, and returns what each would have reported."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from benchmark.energy import Device, DeviceLock, EnergyTracer, Reading
from benchmark.energy.judge.reading import is_estimate
from benchmark.run.peers import carbontracker, codecarbon, eco2ai, impact_tracker
from benchmark.run.peers.formulas import emissions_calculator, facts_of, green_algorithms
from benchmark.run.peers.guard import LONGEST_HOW, PATIENCE_S, guarded, plain, quiet
from benchmark.run.peers.told import Peer, Start, Stop, Told
from benchmark.run.peers.work import training_steps
from benchmark.run.process import ready

PEERS = (impact_tracker.PEER, eco2ai.PEER, codecarbon.PEER, carbontracker.PEER)
"""Outermost first: what takes longest to start stands outside, so that its start is in nobody's window."""
A_MINUTE_S = 60.0
OURS, OUR_DISTRIBUTION = "this benchmark's tracer", "full-cycle-energy-benchmark"


@dataclass
class _Course:
    """How a tool gets on: what starts and stops it, or why it is out."""

    peer: Peer
    start: Start | None = None
    stop: Stop | None = None
    why: str = ""
    began: float = math.nan
    seconds: float = math.nan
    said: tuple[float, str] = field(default=(math.nan, ""))


def compare(
    device: Device,
    seconds: float = A_MINUTE_S,
    say: Callable[[str], None] = lambda line: None,
    peers: Sequence[Peer] = PEERS,
    patience_s: float = PATIENCE_S,
) -> list[Told]:
    """What our tracer, the tools and two calculators report of the same `seconds` of training on a device, ours first.

    All tools run at once, one around the other, ours innermost: each sees the same work, and the threads and child
    processes of the others. A tool that is not installed, fails or takes longer than `patience_s` to load, start or
    stop has NaN and its reason. Raises DeviceError or DeviceBusy where the device cannot be used.
    """
    with DeviceLock(device), tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as folder:
        with quiet():  # what the tools bring along may make torch warn as it is imported
            wait = ready(device)
            work = training_steps(device, wait)
        courses = [_Course(peer) for peer in peers]
        say(f"training ResNet-20 for {seconds:g} s on {device.name}, under {len(peers)} tools and ours")
        with quiet(), contextlib.ExitStack() as open_tools:
            for course in courses:
                _prepare(course, Path(folder), patience_s)
            for course in courses:
                _start(course, patience_s)
                open_tools.callback(_stop, course, patience_s)  # the last to start is the first to stop
            reading, cpu_seconds = _ours(device, wait, lambda: work(seconds))
    facts = facts_of(device, reading.seconds, cpu_seconds)
    told = [_told(course) for course in reversed(courses)]
    return [_told_by_us(reading), *told, green_algorithms(facts), emissions_calculator(facts)]


def _prepare(course: _Course, folder: Path, patience_s: float) -> None:
    peer = course.peer
    try:
        there = find_spec(peer.module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        course.why = peer.absent
        return
    own = folder / peer.distribution
    own.mkdir()
    course.start, course.why = guarded("load", lambda: peer.prepare(own), patience_s)


def _start(course: _Course, patience_s: float) -> None:
    if course.start is None:
        return
    course.began = time.monotonic()
    course.stop, course.why = guarded("start", course.start, patience_s)


def _stop(course: _Course, patience_s: float) -> None:
    if course.stop is None:
        return
    said, course.why = guarded("stop", course.stop, patience_s)
    course.seconds = time.monotonic() - course.began
    course.said = said if said is not None else course.said


def _ours(device: Device, wait: Callable[[], None] | None, work: Callable[[], int]) -> tuple[Reading, float]:
    """Our reading of the work, and the CPU seconds of this process meanwhile."""
    before = time.process_time()
    with EnergyTracer(device, synchronize=wait) as tracer, tracer.window("compare") as window:
        work()
    return window.reading, time.process_time() - before


def _told(course: _Course) -> Told:
    """What a tool said, as data that may be wrong in any way: a number that is none has its reason, too."""
    peer, (wh, how) = course.peer, course.said
    why = course.why
    if not why and not (math.isfinite(wh) and wh >= 0):
        wh, why = math.nan, f"it reported {plain(str(wh))} W h, which is no energy"
    elif not why and wh == 0:
        why = "zero: it saw nothing, or failed without a word"
    return Told(
        peer.tool,
        _version(peer.distribution),
        math.nan if course.why else wh,
        plain(how, LONGEST_HOW) or peer.how,
        why,
        course.seconds,
    )


def _told_by_us(reading: Reading) -> Told:
    estimate = is_estimate(reading.source)
    inside = (
        "CPU seconds of this process and its children x assumed watts a core; no idle power"
        if estimate
        else f"± {reading.ci95_joules / 3600:.2g} W h; idle power included"
    )
    how = f"{reading.source}, grade {reading.grade}: {inside}, no memory, no PUE"
    why = reading.reason if math.isnan(reading.joules) else ""
    return Told(OURS, _version(OUR_DISTRIBUTION), reading.wh, how, why, reading.seconds, estimate)


def _version(distribution: str) -> str:
    try:
        return plain(version(distribution))
    except PackageNotFoundError:
        return "-"
