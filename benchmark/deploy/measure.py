"""The inference protocol: what one image costs, at the best batch size (offline) and alone (single stream).

Each network is measured in these steps: idle with the context open; warm-up to a thermal steady state; one short window
for each batch size (the curve); then `windows` windows at the batch with the lowest energy per image, and as many at
batch 1, each call awaited. The headline number is the mean of the windows at the best batch with its 95 % interval,
idle power included. Real test images rotate on the device, never zeros, because power depends on the data. Several
networks measured together take turns window by window, in random order, so a drift of the board affects all of them
equally. Source: the protocol in docs/energy.md.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark.deploy.engines import kind_named
from benchmark.deploy.quality import most_disturbed, plain, rejection, settled, total
from benchmark.energy.judge.reading import worst
from benchmark.intervals import Interval, mean_ci95
from benchmark.plan.deployment import Engine, Inference, Measurement
from benchmark.plan.stage import Bench, Cost, Output
from benchmark.plan.task import Scale
from benchmark.vision.data import Images, load, normalise

BUFFERS = 4
"""The number of different batches that rotate: a cache, or power that depends on data, must not see only one batch."""

SCENARIOS = ("offline", "single_stream")


@dataclass
class Subject:
    """A network under measurement, and its windows so far."""

    engine: Engine
    protocol: Inference
    pixels: Images
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    best: int = 0
    thermal: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)
    idle: list[Cost] = field(default_factory=list)
    windows: dict[str, list[Cost]] = field(default_factory=lambda: {name: [] for name in SCENARIOS})
    spent_joules: float = 0.0
    spent_seconds: float = 0.0
    batches: dict[int, list[Tensor]] = field(default_factory=dict)

    def cost(self, bench: Bench, call: Callable[[], object], n: int) -> Cost:
        """Meter `n` calls, and book their energy as spent on the measurement of this network."""
        cost = bench.cost(call, n)
        self.spent_joules += cost.joules * n
        self.spent_seconds += cost.seconds * n
        return cost

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


def inference(bench: Bench, params: Measurement, engine: Output) -> Output:
    """Measure the inference of a single engine; the harness measures several in turns, by the same protocol."""
    return measure_group(bench, {"it": subject(bench, params, engine)})["it"]


def subject(bench: Bench, params: Measurement, built: Output) -> Subject:
    """A built engine, loaded, ready to be measured on the test images of its data set."""
    if built.engine is None:
        raise ValueError("the stage to measure must output an engine, and outputs none")
    images = Scale(name="measurement", train_images=1, test_images=params.test_images)
    _, test = load(params.data, bench.data_dir, images)
    engine = kind_named(params.engine).load(built.engine, bench.device, params.protocol.buffers)
    return Subject(engine, params.protocol, test, built.engine.mean, built.engine.std)


def measure_group(bench: Bench, subjects: Mapping[str, Subject], seed: int = 0) -> dict[str, Output]:
    """Measure every subject, their windows in randomised turns; returns an Output of numbers for each name."""
    names = list(subjects)
    way = _Way(bench, [each.protocol for each in subjects.values()])
    for each in subjects.values():
        _idle(bench, each)
        way.passed(each.protocol.idle_s)
        _warm_up(bench, each)
        way.passed(each.protocol.warmup_s)
        for batch in each.protocol.batch_sizes:
            _curve_point(bench, each, batch)
            way.passed(each.protocol.curve_window_s)
        _choose(each)
    shuffle = random.Random(seed)
    for number in range(max(each.protocol.windows for each in subjects.values())):
        shuffle.shuffle(names)
        for name in names:
            each = subjects[name]
            if number >= each.protocol.windows:
                continue
            for scenario in SCENARIOS:
                cost = _window(bench, each, scenario, each.protocol.window_s)
                each.windows[scenario].append(cost)
                way.passed(each.protocol.window_s, mJ_image=1e3 * cost.joules / _images(each, scenario))
    for name in names:
        _idle(bench, subjects[name])
    return {name: _summary(each) for name, each in subjects.items()}


class _Way:
    """Shows how far a measurement is, in seconds: those that went by, and those that the protocol still asks for.

    Counted in steps, the first (a warm-up of minutes) would foretell an hour.
    """

    def __init__(self, bench: Bench, protocols: Sequence[Inference]) -> None:
        self._bench, self._began = bench, time.monotonic()
        self._left_s = math.fsum(
            2 * each.idle_s
            + each.warmup_s
            + len(each.batch_sizes) * each.curve_window_s
            + len(SCENARIOS) * each.windows * each.window_s
            for each in protocols
        )
        self.passed(0.0)

    def passed(self, asked_s: float, **shown: float) -> None:
        """A step is done for which the protocol asks so many seconds."""
        self._left_s = max(0.0, self._left_s - asked_s)
        gone_s = time.monotonic() - self._began
        self._bench.progress(gone_s, math.ceil(gone_s + self._left_s), **shown)


def _images(each: Subject, scenario: str) -> int:
    """Images in one call."""
    return each.best if scenario == "offline" else 1


def _idle(bench: Bench, each: Subject) -> None:
    """Measure the idle power of the device with its context open."""
    each.engine.synchronise()
    each.idle.append(each.cost(bench, lambda: time.sleep(each.protocol.idle_s), 1))


def _warm_up(bench: Bench, each: Subject) -> None:
    """Run the largest batch until power and temperature are steady, `warmup_s` at least and `warmup_cap_s` at most."""
    call = each.caller(max(each.protocol.batch_sizes))
    slice_s = each.protocol.warmup_s / 3
    warm: list[Cost] = []
    began = time.monotonic()
    while not settled(warm):
        if time.monotonic() - began > each.protocol.warmup_cap_s:
            each.thermal = f"not settled after {each.protocol.warmup_cap_s:g} s of warm-up"
            return
        warm.append(each.cost(bench, call, _calls(each, call, slice_s)))


def _curve_point(bench: Bench, each: Subject, batch: int) -> None:
    call = each.caller(batch)
    cost = each.cost(bench, call, _calls(each, call, each.protocol.curve_window_s))
    point = {"batch_size": batch, "joules": cost.joules / batch, "seconds": cost.seconds / batch, "grade": cost.grade}
    each.curve.append({**point, "n": cost.n * batch, "reason": cost.reason})


def _choose(each: Subject) -> None:
    """Choose the headline batch size: the one with the least energy per image, or the fastest where no meter can
    tell."""
    known = all(math.isfinite(point["joules"]) for point in each.curve)
    best = min(each.curve, key=lambda point: point["joules" if known else "seconds"])
    each.best = int(best["batch_size"])


def _window(bench: Bench, each: Subject, scenario: str, seconds: float) -> Cost:
    """One metered window of at least `seconds`; measured again, longer, where the pilot estimated the speed wrongly."""
    plain_call = each.caller(_images(each, scenario))

    def awaited() -> None:
        plain_call()
        each.engine.synchronise()  # single stream: the next image comes when this one is answered

    call = plain_call if scenario == "offline" else awaited
    calls = _calls(each, call, seconds)
    cost = each.cost(bench, call, calls)
    for _ in range(3):
        lasted = cost.seconds * cost.n
        if lasted >= seconds:
            break
        calls = math.ceil(1.1 * calls * seconds / lasted)
        cost = each.cost(bench, call, calls)
    return cost


def _calls(each: Subject, call: Callable[[], object], seconds: float) -> int:
    """How many calls fill `seconds`, estimated by a pilot that queues calls in the same way as the window."""
    calls = 2
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        each.engine.synchronise()
        lasted = time.perf_counter() - began
        if lasted > 0.05 * seconds:
            return max(1, math.ceil(1.05 * seconds * calls / lasted))
        calls *= 2


def _summary(each: Subject) -> Output:
    """The numbers of one network; rejected windows do not count, and are listed with their reasons."""
    rejected = {name: [rejection(cost) for cost in costs] for name, costs in each.windows.items()}
    good = {
        name: [cost for cost, why in zip(costs, rejected[name], strict=True) if not why]
        for name, costs in each.windows.items()
    }
    offline = good["offline"]
    iec = mean_ci95([cost.joules / each.best for cost in offline])
    alone = mean_ci95([cost.joules for cost in good["single_stream"]])
    idle = mean_ci95([cost.joules / cost.seconds for cost in each.idle])
    seconds = mean_ci95([cost.seconds / each.best for cost in offline])
    values = {
        "iec_joules": iec.mean,
        "iec_ci95_joules": iec.half_width,
        "iec_dynamic_joules": iec.mean - idle.mean * seconds.mean,
        "single_stream_joules": alone.mean,
        "single_stream_ci95_joules": alone.half_width,
        "seconds_per_image": seconds.mean,
        "latency_s": mean_ci95([cost.seconds for cost in good["single_stream"]]).mean,
        "idle_context_w": idle.mean,
        "windows": len(offline),
        "n_inferences": sum(cost.n for cost in offline) * each.best,
        "batch_size": each.best,
    }
    return Output(values=values, details={**_details(each, rejected), **_account(each, offline, iec, rejected)})


def _details(each: Subject, rejected: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "scenario": "offline",
        "executes": dict(each.engine.executes),
        "thermal": each.thermal or "settled",
        "curve": [{name: _plain(value) for name, value in point.items()} for point in each.curve],
        "windows": {
            name: [plain(cost, why) for cost, why in zip(costs, rejected[name], strict=True)]
            for name, costs in each.windows.items()
        },
        "spent": {"joules": _plain(each.spent_joules), "seconds": each.spent_seconds},
    }


def _account(each: Subject, offline: list[Cost], iec: Interval, rejected: Mapping[str, list[str]]) -> dict[str, Any]:
    """The energy of the windows that count, as one reading: sums over windows, and the worst of their grades."""
    names = ("gpu_joules", "cpu_joules", "dram_joules", "polled_joules", "polled_period_joules")
    inferences = sum(cost.n for cost in offline) * each.best
    out = sum(bool(why) for why in rejected["offline"])
    reasons = dict.fromkeys(why for why in rejected["offline"] if why)
    reason = f"{out} of {len(rejected['offline'])} windows rejected: {'; '.join(reasons)}" if out else ""
    last = (offline or each.windows["offline"])[-1]
    return {
        "account": {
            **{name: _plain(total(offline, name)) for name in names},
            "joules": _plain(math.fsum(cost.joules * cost.n for cost in offline) if offline else math.nan),
            "ci95_joules": _plain(iec.half_width * inferences),
            "seconds": math.fsum(cost.seconds * cost.n for cost in offline),
            "source": _source(offline or [last]),
            "grade": worst([cost.grade for cost in offline]),
            "reason": "; ".join(filter(None, [reason, each.thermal and f"thermal state {each.thermal}"])),
            "gpu_util_pct": last.reading.get("gpu_util_pct"),
            "mem_util_pct": last.reading.get("mem_util_pct"),
            **most_disturbed(offline or [last]),
            "provenance": last.reading.get("provenance", {}),
        }
    }


def _source(costs: list[Cost]) -> str:
    """The meter of the windows that count; all of them by name, where a meter gave way during the measurement."""
    sources = list(dict.fromkeys(cost.source for cost in costs))
    return sources[0] if len(sources) == 1 else f"mixed({', '.join(sources)})"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
