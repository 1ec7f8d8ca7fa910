"""What a run would do: its stages, which are recorded, what the rest may cost and how much disk it needs. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmark.plan.life import Life
from benchmark.plan.run_file import RunPass, RunStage
from benchmark.plan.stage import Phase, Stage, digest_of
from benchmark.plan.task import Params, Passes
from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.records.store import Store
from benchmark.run.costs import Machine, modelled
from benchmark.run.progress import clock
from benchmark.run.state import edited, measured, measurement, redone, steps
from benchmark.run.workbench import MEASURING


class Forecast(NamedTuple):
    """What a stage may cost, and by what: 'records' of stages that differ in nothing but the seed, the stated 'model',
    records of the same network 'scaled' where the model does not know it, or '' where none tells (then NaN). `bytes`
    are its artifact's, known by records alone."""

    joules: float
    seconds: float
    bytes: float
    by: str


NOTHING = Forecast(math.nan, math.nan, math.nan, "")


class Forecaster:
    """Tells what stages may cost. What is learnt of recorded stages corrects the model for those of the same function,
    else for all."""

    def __init__(self, past: Iterable[Record], model: Machine | None = None) -> None:
        self.model = model
        self.recorded: set[tuple[str, str]] = set()
        self._past: dict[tuple[str, str, str], list[Record]] = {}
        self._seen: dict[str, list[tuple[float, float, float, float]]] = {}
        self._alike: dict[bool, list[tuple[float, float, float, float]]] = {}
        self._digests: dict[int, tuple[Params, str]] = {}
        self._scales: dict[tuple[str, str, frozenset[str]], list[tuple[float, float, float]]] = {}
        for record in past:
            self._past.setdefault((record.fn, record.machine, _digest(record.params)), []).append(record)
            if not record.repeat and record.group is None:
                self.recorded.add((record.machine, record.key))

    def of(self, stage: Stage, machine: str) -> Forecast:
        """What a stage may cost on a machine."""
        like = self._past.get((stage.fn, machine, self._digest_of(stage)))
        if like:
            spent = [_spent(record) for record in like]
            count = len(like)
            return Forecast(
                math.fsum(joules for joules, _ in spent) / count,
                math.fsum(seconds for _, seconds in spent) / count,
                sum(record.artifact_bytes for record in like) / count,
                "records",
            )
        if self.model is None:
            return NOTHING
        cost = modelled(stage, self.model)
        if math.isnan(cost.seconds):
            return self._scaled(stage, machine)
        slower, hungrier = self._corrections(stage)
        return Forecast(cost.joules * hungrier, cost.seconds * slower, math.nan, "model")

    def _digest_of(self, stage: Stage) -> str:
        """The digest of a stage's parameters, made once: a study asks again before every stage."""
        stored = self._digests.get(id(stage.params))
        if stored is None or stored[0] is not stage.params:
            stored = self._digests[id(stage.params)] = (stage.params, _digest(stage.params.model_dump(mode="json")))
        return stored[1]

    def learn(self, stage: Stage, joules: float, seconds: float) -> None:
        """Compare what a stage took with what the model said of it."""
        cost = modelled(stage, self.model) if self.model else None
        if cost and seconds > 0 and cost.seconds > 0:
            self._seen.setdefault(stage.fn, []).append((joules, seconds, *cost))
            self._alike.setdefault(_trains(stage), []).append((joules, seconds, *cost))

    def learn_scale(self, stage: RunStage, record: Record) -> None:
        """Keep what a recorded stage took for the images that it showed to networks."""
        work = _work(stage.passes or ())
        if work > 0 and record.seconds > 0:
            where = (stage.fn, stage.machine, frozenset(each.model for each in stage.passes or ()))
            self._scales.setdefault(where, []).append((record.joules, record.seconds, work))

    def _scaled(self, stage: Stage, machine: str) -> Forecast:
        """By what the same function took with the same networks, in proportion to the images: of another scale, or of
        other epochs."""
        effort = stage.effort()
        passes = effort.passes if effort else ()
        seen = self._scales.get((stage.fn, machine, frozenset(each.model.name for each in passes)))
        if not seen:
            return NOTHING
        joules, seconds, work = (math.fsum(column) for column in zip(*seen, strict=True))
        return Forecast(joules * _work(passes) / work, seconds * _work(passes) / work, math.nan, "scaled")

    def _corrections(self, stage: Stage) -> tuple[float, float]:
        """By what the model's seconds and joules are multiplied: the sums of what was seen over those of the model. A
        training is not corrected by what building an engine took."""
        effort = stage.effort()
        if effort is not None and not effort.passes:  # what a protocol asks for takes as long on any machine
            return 1.0, 1.0
        seen = self._seen.get(stage.fn) or self._alike.get(_trains(stage))
        if not seen:
            return 1.0, 1.0
        slower = math.fsum(each[1] for each in seen) / math.fsum(each[3] for each in seen)
        known = [each for each in seen if math.isfinite(each[0]) and each[2] > 0]
        hungrier = math.fsum(each[0] for each in known) / math.fsum(each[2] for each in known) if known else slower
        return slower, hungrier


def _work(passes: Iterable[Passes | RunPass]) -> float:
    """Forward passes of images; a backward one costs two."""
    return math.fsum(each.images * each.times * (3 if each.trains else 1) for each in passes)


def _trains(stage: Stage) -> bool:
    effort = stage.effort()
    return effort is not None and any(each.trains for each in effort.passes)


def forecaster(store: Store, lives: Sequence[Life], model: Machine | None = None) -> Forecaster:
    """A forecaster that knows every sound record of a store, and has learnt from those of these lives."""
    book = Book.read(store)
    told = Forecaster(book.records(), model)
    for run in book.runs:
        for planned in run.stages:
            if planned.passes and (kept := book.record(planned)):
                told.learn_scale(planned, kept)
    learnt: set[str] = set()
    for life in lives if model else ():
        for phase, stage in life.steps():
            record = book.firsts.get((life.machine(phase), life.key(stage)))
            if record is not None and record.key not in learnt:
                learnt.add(record.key)
                told.learn(stage, record.joules, record.seconds)
    return told


def table(store: Store, planned: Sequence[Life], model: Machine | None = None) -> Iterator[str]:
    """Lines for people: every stage of every life cycle, then the sums of what is left."""
    told, runs = forecaster(store, planned, model), store.runs()
    left: dict[str, Forecast] = {}
    for life in planned:
        yield f"{life.name} seed {life.task.seed}"
        for phase, stage, key, done in listed(store, life):
            line = f"  {phase:<8} {stage.fn:<40} {key}  "
            if done:
                yield line + "recorded"
                continue
            left[key] = told.of(stage, life.machine(phase))
            yield line + _begun(store, life.machine(phase), phase, key) + cost(left[key])
        for phase, why in life.plan.unmeasured.items():
            yield f"  {phase:<8} unmeasured: TEC will be unknown, {why}"
        yield from (f"  {line}" for line in redone(life, store, runs))
        for step in steps(life, store):
            if step.record and (note := edited(step.stage, step.record)):
                yield f"  {step.stage.name} {step.key}{note}"
    yield from sums(list(left.values()), model)


def _begun(store: Store, machine: str, phase: Phase, key: str) -> str:
    """What an interruption left of a stage, in words; empty where it left nothing."""
    if store.outputs.begun(key):
        return "partly done (it goes on from its checkpoint); "
    if not store.attempt_paths(machine, MEASURING if phase is Phase.INFER else key):
        return ""
    what = "a measurement was begun" if phase is Phase.INFER else "begun, no checkpoint yet"
    return f"{what} (interrupted, it begins again, and what it spent is booked as repeated); "


def sums(left: Sequence[Forecast], model: Machine | None = None) -> Iterator[str]:
    """Lines for people: what is left in all, and by what that is known."""
    yield f"to do: {len(left)} stage(s)" + ("" if any(each.by for each in left) or not left else "; no record to go by")
    known_by = {
        "records": "by earlier records",
        "scaled": "by records of the same network at another scale",
        "model": f"by the model of {model.name if model else '?'}",
    }
    for by, words in known_by.items():
        known = [each for each in left if each.by == by]
        if known:
            yield f"  {len(known)} of them about {amount(known)} {words}"
    unknown = sum(not each.by for each in left)
    if 0 < unknown < len(left):
        yield f"  {unknown} of them: nothing to go by before a first run (the model knows the zoo alone)"
    if left:
        yield _disk(left, [each for each in left if not math.isnan(each.bytes)])


def amount(known: Sequence[Forecast]) -> str:
    """Time and energy of some stages, for people."""
    joules = [each.joules for each in known]
    energy = f"{math.fsum(joules) / 3600:.3g} W.h" if all(map(math.isfinite, joules)) else "unknown energy"
    return f"{clock(math.fsum(each.seconds for each in known))} and {energy}"


def outlook_of(stages: Sequence[Forecast]) -> str:
    """How many stages, what those take that are known, and how many are not."""
    known = [each for each in stages if not math.isnan(each.seconds)]
    unknown = len(stages) - len(known)
    words = [f"{len(stages)} stage(s)", f"about {amount(known)}" if known else ""]
    words += [f"{unknown} of them unknown" if unknown else ""]
    return ", ".join(filter(None, words))


def _disk(left: Sequence[Forecast], known: Sequence[Forecast]) -> str:
    remedy = "python -m benchmark free removes what no unfinished life needs"
    if not known:
        return f"disk: no record to go by yet ({remedy})"
    room = math.fsum(each.bytes for each in known) / 1e6
    rest = "" if len(known) == len(left) else "; no record to go by for the rest"
    return f"disk: about {room:.3g} MB of artifacts for {len(known)} of them{rest} ({remedy})"


def listed(store: Store, life: Life) -> Iterator[tuple[Phase, Stage, str, bool]]:
    """(phase, stage, key, whether recorded) of a life cycle, its inference measurement last."""
    for phase, stage, key, record in steps(life, store):
        yield phase, stage, key, record is not None
    inference = measurement(life, store)
    if inference is None:  # what the engine executes, and with it the key, is known once it is built
        yield Phase.INFER, life.measurement({"signature": "unknown"}), "(known with the engine)".ljust(20), False
    else:
        yield Phase.INFER, inference, life.key(inference), measured(life, store)


def _spent(record: Record) -> tuple[float, float]:
    """Joules and seconds of the whole stage; of a measurement, all its windows and not only those that count."""
    spent = record.details.get("spent")
    known = spent if isinstance(spent, dict) else {}
    joules, seconds = known.get("joules", record.joules), known.get("seconds", record.seconds)
    return (float(joules) if isinstance(joules, int | float) else math.nan), float(seconds or 0.0)


def _digest(params: Any) -> str:
    return digest_of(_without_seed(params))


def _without_seed(params: Any) -> Any:
    if isinstance(params, dict):
        # a measurement's time is its protocol's: any network's will do
        return {name: _without_seed(value) for name, value in params.items() if name not in ("seed", "signature")}
    return params


def cost(forecast: Forecast) -> str:
    """What a stage may cost, for people."""
    if not forecast.by:
        return "to do"
    about = {"records": "about", "scaled": "by other scales"}.get(forecast.by, "by the model")
    return f"to do, {about} {clock(forecast.seconds)}, {forecast.joules / 3600:.3g} W.h"
