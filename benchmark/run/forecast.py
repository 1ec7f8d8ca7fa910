"""What a run would do: its stages, which are recorded, and what the rest may cost. Torch-free; runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.plan.life import Life
from benchmark.plan.stage import Phase, Stage
from benchmark.records.store import Record, Store
from benchmark.run.progress import clock


def table(store: Store, planned: Sequence[Life]) -> Iterator[str]:
    """Lines for people: every stage of every life cycle, then the sums of what is left."""
    past = list(store.records())
    left: dict[str, tuple[float, float]] = {}
    for life in planned:
        yield f"{life.experiment.name()} seed {life.task.seed}"
        for phase, stage, key, recorded in _steps(store, life):
            line = f"  {phase:<8} {stage.fn:<40} {key}  "
            if recorded:
                yield line + "recorded"
                continue
            cost = _estimate(stage, life.machine(phase), past)
            left[key] = cost
            yield line + _cost(*cost)
    known = [cost for cost in left.values() if not math.isnan(cost[1])]
    total = f"to do: {len(left)} stage(s)"
    if known:
        joules = [cost[0] for cost in known]
        watt_hours = f"{math.fsum(joules) / 3600:.3g} W.h" if all(map(math.isfinite, joules)) else "unknown energy"
        duration = clock(math.fsum(cost[1] for cost in known))
        total += f"; {len(known)} of them about {duration} and {watt_hours} by earlier records"
    yield total + ("; no record to go by for the rest" if 0 < len(known) < len(left) else "")


def _steps(store: Store, life: Life) -> Iterator[tuple[Phase, Stage, str, bool]]:
    """(phase, stage, key, whether recorded) of a life cycle, its inference measurement last."""
    built = None
    for phase, stage in life.steps():
        built = store.record(life.machine(phase), life.key(stage))
        yield phase, stage, life.key(stage), built is not None
    if built is None:
        # the network's shape, and with it the key, is known once its engine is built
        yield Phase.INFER, life.measurement("unknown"), "(known with the engine)".ljust(20), False
    else:
        stage = life.measurement(str(built.details["signature"]))
        yield Phase.INFER, stage, life.key(stage), bool(store.measurements(life.place.infer_machine, life.key(stage)))


def _estimate(stage: Stage, machine: str, past: Sequence[Record]) -> tuple[float, float]:
    """Mean joules and seconds of recorded stages that differ in nothing but the seed; NaN without any."""
    wanted = _without_seed(stage.params.model_dump(mode="json"))
    like = [r for r in past if r.fn == stage.fn and r.machine == machine and _without_seed(r.params) == wanted]
    if not like:
        return math.nan, math.nan
    spent = [(r.details.get("spent") or {"joules": r.joules, "seconds": r.seconds}) for r in like]
    joules = [math.nan if each["joules"] is None else each["joules"] for each in spent]
    return math.fsum(joules) / len(like), math.fsum(each["seconds"] for each in spent) / len(like)


def _without_seed(params: Any) -> Any:
    if isinstance(params, dict):
        # a measurement's time is its protocol's: any network's will do
        return {name: _without_seed(value) for name, value in params.items() if name not in ("seed", "signature")}
    return params


def _cost(joules: float, seconds: float) -> str:
    return "to do" if math.isnan(seconds) else f"to do, about {clock(seconds)}, {joules / 3600:.3g} W.h"
