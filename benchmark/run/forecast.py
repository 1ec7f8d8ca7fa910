"""What a run would do: its stages, which are recorded, what the rest may cost and how much disk it needs. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmark.plan.life import Life
from benchmark.plan.stage import Phase, Stage
from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.records.store import Store
from benchmark.run.progress import clock
from benchmark.run.state import measured, measurement, redone, steps


class Forecast(NamedTuple):
    """What a stage may cost, by the records of stages that differ in nothing but the seed; NaN without any."""

    joules: float
    seconds: float
    bytes: float


def table(store: Store, planned: Sequence[Life]) -> Iterator[str]:
    """Lines for people: every stage of every life cycle, then the sums of what is left."""
    book = Book.read(store)
    past, runs = (
        [record for each in (book.firsts.values(), *book.repeats.values(), *book.measured.values()) for record in each],
        book.runs,
    )
    left: dict[str, Forecast] = {}
    for life in planned:
        yield f"{life.name} seed {life.task.seed}"
        for phase, stage, key, done in _steps(store, life):
            line = f"  {phase:<8} {stage.fn:<40} {key}  "
            if done:
                yield line + "recorded"
                continue
            left[key] = _forecast(stage, life.machine(phase), past)
            yield line + _cost(left[key])
        for phase, why in life.plan.unmeasured.items():
            yield f"  {phase:<8} unmeasured: TEC will be unknown, {why}"
        yield from (f"  {line}" for line in redone(life, store, runs))
    yield from _sums(list(left.values()))


def _sums(left: Sequence[Forecast]) -> Iterator[str]:
    known = [cost for cost in left if not math.isnan(cost.seconds)]
    total = f"to do: {len(left)} stage(s)"
    if known:
        joules = [cost.joules for cost in known]
        watt_hours = f"{math.fsum(joules) / 3600:.3g} W.h" if all(map(math.isfinite, joules)) else "unknown energy"
        duration = clock(math.fsum(cost.seconds for cost in known))
        total += f"; {len(known)} of them about {duration} and {watt_hours} by earlier records"
    yield total + ("; no record to go by for the rest" if 0 < len(known) < len(left) else "")
    if left:
        yield _disk(left, known)


def _disk(left: Sequence[Forecast], known: Sequence[Forecast]) -> str:
    remedy = "python -m benchmark free removes what no unfinished life needs"
    if not known:
        return f"disk: no record to go by yet ({remedy})"
    room = math.fsum(cost.bytes for cost in known) / 1e6
    rest = "" if len(known) == len(left) else "; no record to go by for the rest"
    return f"disk: about {room:.3g} MB of artifacts for {len(known)} of them{rest} ({remedy})"


def _steps(store: Store, life: Life) -> Iterator[tuple[Phase, Stage, str, bool]]:
    """(phase, stage, key, whether recorded) of a life cycle, its inference measurement last."""
    for phase, stage, key, record in steps(life, store):
        yield phase, stage, key, record is not None
    inference = measurement(life, store)
    if inference is None:  # what the engine executes, and with it the key, is known once it is built
        yield Phase.INFER, life.measurement({"signature": "unknown"}), "(known with the engine)".ljust(20), False
    else:
        yield Phase.INFER, inference, life.key(inference), measured(life, store)


def _forecast(stage: Stage, machine: str, past: Sequence[Record]) -> Forecast:
    """The mean over recorded stages that differ in nothing but the seed."""
    wanted = _without_seed(stage.params.model_dump(mode="json"))
    like = [r for r in past if r.fn == stage.fn and r.machine == machine and _without_seed(r.params) == wanted]
    if not like:
        return Forecast(math.nan, math.nan, math.nan)
    spent = [_spent(record) for record in like]
    count = len(like)
    return Forecast(
        math.fsum(joules for joules, _ in spent) / count,
        math.fsum(seconds for _, seconds in spent) / count,
        sum(r.artifact_bytes for r in like) / count,
    )


def _spent(record: Record) -> tuple[float, float]:
    """Joules and seconds of the whole stage; of a measurement, all its windows and not only those that count."""
    spent = record.details.get("spent")
    known = spent if isinstance(spent, dict) else {}
    joules, seconds = known.get("joules", record.joules), known.get("seconds", record.seconds)
    return (float(joules) if isinstance(joules, int | float) else math.nan), float(seconds or 0.0)


def _without_seed(params: Any) -> Any:
    if isinstance(params, dict):
        # a measurement's time is its protocol's: any network's will do
        return {name: _without_seed(value) for name, value in params.items() if name not in ("seed", "signature")}
    return params


def _cost(cost: Forecast) -> str:
    if math.isnan(cost.seconds):
        return "to do"
    return f"to do, about {clock(cost.seconds)}, {cost.joules / 3600:.3g} W.h"
