"""How far a life is, by the records of a store. Here alone a measurement's key comes from its engine's record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmark.errors import one_line
from benchmark.plan import own_code
from benchmark.plan.life import Life
from benchmark.plan.run_file import RunFile, RunStage
from benchmark.plan.stage import Phase, Stage
from benchmark.records.files import Unreadable
from benchmark.records.record import Record
from benchmark.records.store import Store


class Step(NamedTuple):
    """A stage of a life, and its record where there is one."""

    phase: Phase
    stage: Stage
    key: str
    record: Record | None


def steps(life: Life, store: Store) -> list[Step]:
    """Every stage of a life whose key is known before the first stage runs, with its record."""
    found = []
    for phase, stage in life.steps():
        key = life.key(stage)
        found.append(Step(phase, stage, key, store.record(life.machine(phase), key, stage.fn)))
    return found


def measurement(life: Life, store: Store) -> Stage | None:
    """The inference measurement of a life; None until its engine is built. Raises Unreadable where its record cannot be
    true."""
    built = store.record(life.place.infer_machine, life.key(life.build), life.build.fn)
    return None if built is None else life.measurement(built.details)


def measured(life: Life, store: Store) -> bool:
    """Whether the inference of a life has been measured."""
    stage = measurement(life, store)
    return stage is not None and bool(store.measurements(life.place.infer_machine, life.key(stage)))


def recorded(life: Life, store: Store) -> bool:
    """Whether nothing of a life is left to do; what no table would accept is left to mend."""
    try:
        return all(step.record is not None for step in steps(life, store)) and measured(life, store)
    except Unreadable:
        return False


def edited(stage: Stage, record: Record) -> str:
    """A warning where the file of a stage's function, of the user's own, is not the one that made its record; empty
    else. Such a function's own `version` says when its results are others."""
    module = stage.fn.partition(":")[0]
    before, now = record.provenance.get("outside", {}).get(module), own_code.file_digest(module)
    if before is None or not now or now == before:
        return ""
    return f" ({module} was edited since: raise the version of its parameters to run it again)"


def redone(life: Life, store: Store, runs: Iterable[RunFile]) -> Iterator[str]:
    """What of a life is recorded under an earlier plan, one of `runs`, and would run again, and why; a line each.

    Earlier is the newest plan that was asked for in the same words; stages are paired by function, in their order.
    """
    run = life.run_file("")
    earlier = [other for other in runs if _same_words(run, other) and _plan(other) != _plan(run)]
    if not earlier:
        return
    before = max(earlier, key=lambda other: other.created)
    waiting: dict[str, list[RunStage]] = {}
    for stage in before.stages:
        waiting.setdefault(stage.fn, []).append(stage)
    changed: dict[str, str] = {}
    rewritten = any(run.settings.get(name) != before.settings.get(name) for name in CODE)
    for stage in run.stages:
        was = waiting[stage.fn].pop(0) if waiting.get(stage.fn) else None
        if was is None or was.key == stage.key:
            continue
        changed[stage.key] = stage.name
        if _kept(store, was) and not _kept(store, stage):
            why = _why(stage, was, changed) or (CODE_CHANGED if rewritten else "its parameters have changed")
            yield one_line(f"{stage.name} {was.key} is recorded, but runs again as {stage.key}: {why}")
    if run.measurement_version != before.measurement_version:
        versions = f"from {before.measurement_version} to {run.measurement_version}"
        yield f"inference is measured again: its version was raised {versions}"


def _kept(store: Store, stage: RunStage) -> bool:
    with contextlib.suppress(Unreadable):  # the run that needs it says so
        return store.record(stage.machine, stage.key, stage.fn) is not None
    return False


def _plan(run: RunFile) -> tuple[str, int]:
    return run.plan, run.measurement_version


def _same_words(one: RunFile, other: RunFile) -> bool:
    """Whether two runs were asked for in the same words and settings, as far as both know them, whatever the code made
    of them."""
    names = ("words", "seed", "train_machine", "infer_machine")
    common = (one.settings.keys() & other.settings.keys()).difference(CODE)
    same = all(one.settings[name] == other.settings[name] for name in common)
    return same and all(getattr(one, name) == getattr(other, name) for name in names)


CODE = ("model.code", "teacher.code")
CODE_CHANGED = "the code of its network has changed"


def _why(stage: RunStage, was: RunStage, changed: dict[str, str]) -> str:
    if stage.version != was.version:
        return f"its version was raised from {was.version} to {stage.version}"
    rests = [changed[key] for key in stage.inputs.values() if key in changed]
    return f"it rests on {', '.join(rests)}" if rests else ""
