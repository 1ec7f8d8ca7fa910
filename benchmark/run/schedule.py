"""Which stage runs when: lives one after another on one worker. Another executor is another module like this one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from benchmark.energy import DeviceError
from benchmark.errors import UserError
from benchmark.plan.deployment import EngineError, Here
from benchmark.plan.life import Life, undeployable
from benchmark.plan.stage import Phase
from benchmark.records.files import StoreError, Unreadable
from benchmark.records.provenance import now
from benchmark.run.process import forget, terminable
from benchmark.run.state import measurement, redone
from benchmark.run.worker import Pending, StageError, Worker

GROUP = 8
"""Engines whose measurements take turns. More would hold more of them on the device, and lose more when interrupted."""


def work(worker: Worker, blocks: Sequence[Sequence[Life]], measure_again: bool = False) -> None:
    """Bring every life to its rows: train, compress, deploy; inferences are measured as soon as eight shapes wait, and
    at the end of each block.

    A life that fails or is refused ends alone: the others go on. Raises StageError at the end, with every failure;
    StoreError or DeviceError at once, for without a place to keep results or a device there is no going on. Everything
    measured until then is kept.
    """
    failures: list[str] = []
    try:
        with worker, terminable():
            _announce(worker, blocks)
            for block in blocks:
                _work_block(worker, block, failures, measure_again)
    except (StoreError, DeviceError) as error:
        if failures:
            raise type(error)("; ".join([str(error), *failures])) from error
        raise
    if failures:
        raise StageError("; ".join(dict.fromkeys(failures)))


def _work_block(worker: Worker, block: Sequence[Life], failures: list[str], measure_again: bool) -> None:
    pending: dict[str, Pending] = {}
    for life in block:
        failure = _advance(worker, life, pending, measure_again)
        failures += [failure] if failure else []
        if len(pending) >= GROUP:
            failures += _measure(worker, pending)
    while pending:
        failures += _measure(worker, pending)


def _announce(worker: Worker, blocks: Sequence[Sequence[Life]]) -> None:
    """Remember what was asked for, and say what will run again."""
    before = worker.site.store.runs()
    for life in (life for block in blocks for life in block):
        for line in redone(life, worker.site.store, before):
            worker.say(f"note: {line}")
        worker.site.store.add_run(life.run_file(now()))


def _advance(worker: Worker, life: Life, pending: dict[str, Pending], again: bool) -> str:
    """Run the stages of a life, and note the measurement that it then needs. Returns why that failed, or ''."""
    try:
        for phase, stage in life.steps():
            worker.ensure(life, phase, stage)
    except (StageError, Unreadable) as error:
        failure = str(error)  # the words alone: the error itself would hold the stage's tensors
    else:
        failure = ""
    if failure:
        forget()
        return failure
    inference = measurement(life, worker.site.store)
    if inference is None:
        raise StoreError(
            f"the record of engine {life.key(life.build)} vanished during the run: was it removed? Run again"
        )
    key = life.key(inference)
    if again or not worker.site.store.measurements(life.place.infer_machine, key):
        pending.setdefault(key, Pending(life, inference))
    else:
        worker.say(f"{Phase.INFER:<8} {inference.name} {key}: recorded")
    return ""


def _measure(worker: Worker, pending: dict[str, Pending]) -> list[str]:
    """Measure the first group of those that wait, and take it out. Returns why that failed, if it did."""
    group = dict(islice(pending.items(), GROUP))
    for key in group:
        del pending[key]
    try:
        worker.measure(group)
    except StageError as error:
        return [str(error)]
    return []


def _words(error: Exception) -> str:
    plain = isinstance(error, ValueError | UserError)
    return str(error) if plain else f"its check failed: {type(error).__name__}: {error}"


def refusals(lives: Sequence[Life], here: Here, device: str) -> dict[int, str]:
    """Why some of these lives cannot be worked at all, by position: what their engine says when its library is imported
    for the torch device `device`, and their methods' own check, before the first stage."""
    found: dict[int, str] = {}
    for number, life in enumerate(lives):
        try:
            _prove_engine(life, here, device)
            life.experiment.build_method().check(life.task)
        except Exception as error:  # a check may fail in any way; all of them refuse this life and no other
            found[number] = f"{life.experiment.method['name']} on {life.task.model.name}: {_words(error)}"
    return found


def _prove_engine(life: Life, here: Here, device: str) -> None:
    """Raise EngineError where the engine of a life that infers here cannot run it, or turns out not to run."""
    why = undeployable(life, here)
    if why:
        raise EngineError(why)
    kind = here.kind(life.experiment.engine)
    if kind is not None and life.place.infer_machine == here.machine:
        kind.prove(life.plan.deploy.name, device)
