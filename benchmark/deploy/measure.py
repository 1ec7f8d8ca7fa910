"""The inference protocol: what one image costs, at the best batch size (offline) and alone (single stream).

Headline: the batch size with the lowest energy per image; `windows` windows there, mean and 95 % interval. Real test
images on
the device in rotation, never zeros (power depends on data). Several networks measured together take turns window by
window,
so a drift of the board touches all of them alike.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.deploy.engines import Engine, open_engine
from benchmark.deploy.plan import Measurement
from benchmark.energy.stats import mean_ci95
from benchmark.stage import Bench, Cost, Network, Output
from benchmark.task import Task
from benchmark.vision.data import Images, load, normalise

BUFFERS = 4
"""Different batches in rotation: a cache or a data-dependent power draw must not see one batch for ever."""


@dataclass
class Subject:
    """A network under measurement and what has been seen of it so far."""

    engine: Engine
    protocol: Measurement
    pixels: Images
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batches: dict[int, list[Tensor]] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    windows: dict[str, list[Cost]] = field(default_factory=lambda: {"offline": [], "single_stream": []})

    def caller(self, batch_size: int) -> Callable[[], object]:
        """A function that runs the next of the rotating batches of this size."""
        if batch_size not in self.batches:
            self.batches[batch_size] = self._buffers(batch_size)
        turn = itertools.cycle(self.batches[batch_size])
        return lambda: self.engine(next(turn))

    def _buffers(self, batch_size: int) -> list[Tensor]:
        count = len(self.pixels)
        starts = [number * max(1, count // BUFFERS) for number in range(BUFFERS)]
        picks = [torch.arange(start, start + batch_size) % count for start in starts]
        return [self.engine.prepare(normalise(self.pixels.pixels[pick], self.mean, self.std)) for pick in picks]


def subject(network: Network, protocol: Measurement, task: Task, data_dir: Path, device: str) -> Subject:
    """A network ready to be measured on the test images of its task."""
    _, test = load(task.data, data_dir, task.scale)
    engine = open_engine(protocol.engine, network, protocol.precision, device)
    return Subject(engine, protocol, test, network.mean, network.std)


def measure_group(bench: Bench, subjects: Mapping[str, Subject], seed: int = 0) -> dict[str, Output]:
    """Measure every subject, their windows in randomised turns; returns an Output of numbers for each name."""
    names = list(subjects)
    total = sum(len(s.protocol.batch_sizes) + 2 * s.protocol.windows for s in subjects.values())
    steps = itertools.count(1)
    for name in names:
        _curve(bench, subjects[name], lambda: bench.progress(next(steps), total))
    rounds = max(subject.protocol.windows for subject in subjects.values())
    shuffle = random.Random(seed)
    for number in range(rounds):
        shuffle.shuffle(names)
        for name in names:
            subject = subjects[name]
            if number < subject.protocol.windows:
                for scenario, batch in (("offline", subject.best), ("single_stream", 1)):
                    cost = _window(bench, subject, batch, subject.protocol.window_s)
                    subject.windows[scenario].append(cost)
                    bench.progress(next(steps), total, mj_per_image=1000 * cost.joules / batch)
    return {name: _summary(subject) for name, subject in subjects.items()}


def _curve(bench: Bench, subject: Subject, step: Callable[[], None]) -> None:
    """One short window for each batch size; the cheapest per image is the headline's (the fastest, where no meter can
    tell)."""
    _warm_up(bench, subject)
    for batch in subject.protocol.batch_sizes:
        cost = _window(bench, subject, batch, subject.protocol.curve_window_s)
        subject.curve.append(
            {"batch_size": batch, "joules": cost.joules / batch, "seconds": cost.seconds / batch, "n": cost.n * batch}
        )
        step()
    known = all(math.isfinite(point["joules"]) for point in subject.curve)
    best = min(subject.curve, key=lambda point: point["joules" if known else "seconds"])
    subject.best = int(best["batch_size"])


def _warm_up(bench: Bench, subject: Subject) -> None:
    """Work at the largest batch for `warmup_s`, off the meter: clocks, caches and algorithms settle."""
    call = subject.caller(max(subject.protocol.batch_sizes))
    with bench.paused():
        end = time.perf_counter() + subject.protocol.warmup_s
        while time.perf_counter() < end:
            call()
            _synchronise(bench)


def _window(bench: Bench, subject: Subject, batch: int, seconds: float) -> Cost:
    """One metered window of at least about `seconds`: a pilot of a few calls says how many calls that is."""
    call = subject.caller(batch)
    with bench.paused():
        call()
        _synchronise(bench)
        began, calls = time.perf_counter(), 0
        while calls < 3 or time.perf_counter() - began < 0.05 * seconds:
            call()
            _synchronise(bench)
            calls += 1
        each = (time.perf_counter() - began) / calls
    return bench.cost(call, max(1, math.ceil(seconds / each)))


def _synchronise(bench: Bench) -> None:
    if bench.device.startswith("cuda"):
        torch.cuda.synchronize(bench.device)


def _summary(subject: Subject) -> Output:
    offline, single = subject.windows["offline"], subject.windows["single_stream"]
    iec = mean_ci95([cost.joules / subject.best for cost in offline])
    alone = mean_ci95([cost.joules for cost in single])
    seconds = mean_ci95([cost.seconds / subject.best for cost in offline])
    latency = mean_ci95([cost.seconds for cost in single])
    return Output(
        values={
            "iec_joules": iec.mean,
            "iec_ci95_joules": iec.half_width,
            "single_stream_joules": alone.mean,
            "single_stream_ci95_joules": alone.half_width,
            "seconds_per_image": seconds.mean,
            "latency_s": latency.mean,
            "windows": len(offline),
            "n_inferences": sum(cost.n for cost in offline) * subject.best,
            "batch_size": subject.best,
            "spent_joules": math.fsum(cost.joules * cost.n for cost in (*offline, *single)),
            "spent_seconds": math.fsum(cost.seconds * cost.n for cost in (*offline, *single)),
        },
        details={
            "scenario": "offline",
            "curve": subject.curve,
            "windows": {name: [_plain(cost) for cost in costs] for name, costs in subject.windows.items()},
        },
    )


def _plain(cost: Cost) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in vars(cost).items()}
