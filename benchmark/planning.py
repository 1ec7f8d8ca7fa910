"""What a run would do: its stages, which are recorded, and what the rest may cost. Torch-free; runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.life import Life
from benchmark.progress import clock
from benchmark.stage import Phase, Stage
from benchmark.store import Record, Store


def table(store: Store, planned: Sequence[Life]) -> Iterator[str]:
    """Lines for people: every stage of every life cycle, then the sums of what is left."""
    past = list(store.records())
    left_j, left_s, unknown = 0.0, 0.0, 0
    seen: set[str] = set()
    for life in planned:
        yield f"{life.experiment.name()} seed {life.task.seed}"
        for phase, stage in life.steps():
            key = life.key(stage)
            line = f"  {phase:<8} {stage.fn:<40} {key}  "
            if store.record(life.profile(phase), key) is not None:
                yield line + "recorded"
                continue
            joules, seconds = _estimate(stage, life.profile(phase), past)
            yield line + _cost(joules, seconds)
            if key not in seen:
                seen.add(key)
                left_j, left_s = left_j + _or_zero(joules), left_s + _or_zero(seconds)
                unknown += math.isnan(seconds)
        yield f"  {Phase.INFER:<8} " + _inference(store, life)
    total = f"to do: {len(seen)} stage(s)"
    if seen:
        total += f", about {clock(left_s)} and {left_j / 3600:.3g} W.h by earlier records"
        total += f"; no record to go by for {unknown} of them" if unknown else ""
    yield total


def _inference(store: Store, life: Life) -> str:
    built = store.record(life.place.infer_profile, life.key(life.build))
    if built is None:
        return "benchmark.deploy.measure:inference       (its key is known once the engine is built)"
    stage = life.measurement(str(built.details["signature"]))
    key = life.key(stage)
    known = "recorded" if store.measurements(life.place.infer_profile, key) else "to measure"
    return f"{stage.fn:<40} {key}  {known}"


def _estimate(stage: Stage, profile: str, past: Sequence[Record]) -> tuple[float, float]:
    """Mean joules and seconds of recorded stages that differ in nothing but the seed; NaN without any."""
    wanted = _without_seed(stage.params.model_dump(mode="json"))
    like = [r for r in past if r.fn == stage.fn and r.profile == profile and _without_seed(r.params) == wanted]
    if not like:
        return math.nan, math.nan
    return math.fsum(r.joules for r in like) / len(like), math.fsum(r.seconds for r in like) / len(like)


def _without_seed(params: Any) -> Any:
    if isinstance(params, dict):
        return {name: _without_seed(value) for name, value in params.items() if name != "seed"}
    return params


def _cost(joules: float, seconds: float) -> str:
    return "to do" if math.isnan(seconds) else f"to do, about {clock(seconds)}, {joules / 3600:.3g} W.h"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
