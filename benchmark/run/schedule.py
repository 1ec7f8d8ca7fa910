"""One worker does what an agenda holds, job after job. Another executor is another module like this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from benchmark.energy import DeviceError
from benchmark.errors import UserError
from benchmark.plan.deployment import EngineError, Here
from benchmark.plan.life import Life, undeployable
from benchmark.records.files import StoreError, Unreadable
from benchmark.records.provenance import now
from benchmark.records.store import Store
from benchmark.run.agenda import BUSY_S, Agenda, Job, StageJob, lives_of
from benchmark.run.process import forget, terminable
from benchmark.run.state import redone
from benchmark.run.whole import Whole
from benchmark.run.worker import StageBusy, StageError, Worker

MANY = 24
"""Above so many stages, those that are recorded are counted, and not listed."""


def work(
    worker: Worker, blocks: Sequence[Sequence[Life]], measure_again: bool = False, whole: Whole | None = None
) -> str:
    """Bring every life to its rows: train, compress, deploy; inferences are measured as soon as eight shapes wait, and
    at the end of each block. `whole` watches a study's progress and its budget; returns why that ended it early, if so.

    A life that fails or is refused ends alone: the others go on. Raises StageError at the end, with every failure;
    StoreError or DeviceError at once, for without a place to keep results or a device there is no going on. Everything
    measured until then is kept. Other processes may work on the same folders: each stage is run by one of them.
    """
    few = sum(len(life.steps()) for life in lives_of(blocks)) <= MANY
    agenda, stopped = Agenda(worker.site.store, blocks, measure_again, worker.say if few else _quiet), ""
    try:
        with worker, terminable():
            announce(worker.site.store, worker.say, blocks)
            _skip_recorded(worker, agenda, whole)
            while not agenda.finished:
                job = agenda.take()
                if job is None:
                    if not agenda.finished:  # asking can show that nothing is left
                        time.sleep(BUSY_S / 2)
                    continue
                why = whole.over(job) if whole else ""
                if why:
                    agenda.again(job)
                    agenda.stop()
                    stopped = stopped or why
                    continue
                _do(worker, agenda, job, whole)
    except (StoreError, DeviceError) as error:
        if agenda.failures:
            raise type(error)("; ".join([str(error), *agenda.failures])) from error
        raise
    if agenda.failures:
        raise StageError("; ".join(dict.fromkeys(agenda.failures)), agenda.failures)
    return stopped and f"{stopped}; {len(agenda.left)} experiment(s) are left for the next run"


def _quiet(line: str) -> None:
    pass


def announce(store: Store, say: Callable[[str], None], blocks: Sequence[Sequence[Life]]) -> None:
    """Remember what was asked for, and say what will run again."""
    before = store.runs()
    for life in lives_of(blocks):
        for line in redone(life, store, before):
            say(f"note: {line}")
        store.add_run(life.run_file(now()))


def _skip_recorded(worker: Worker, agenda: Agenda, whole: Whole | None) -> None:
    """Tell the agenda what is there already."""
    jobs, found = agenda.keys(), set()
    for job in jobs.values():
        try:
            record = worker.recorded(job.life, job.phase, job.stage)
        except Unreadable:
            continue  # said when its turn comes
        if record is not None:
            found.add(job.key)
            agenda.done(job)
            if len(jobs) <= MANY:
                worker.say(f"{job.phase:<8} {job.stage.name} {job.key}: recorded")
    if found and len(jobs) > MANY:
        worker.say(f"{len(found)} of {len(jobs)} stages are recorded")
    if whole:
        whole.begin(agenda, found)


def _do(worker: Worker, agenda: Agenda, job: Job, whole: Whole | None) -> None:
    if whole:
        whole.next(agenda.failures)
    try:
        if isinstance(job, StageJob):
            record, joules = worker.ensure(job.life, job.phase, job.stage, wait=False), math.nan
        else:
            record, joules = None, worker.measure(job.group, again=agenda.again_measured)
    except StageBusy as busy:
        agenda.busy(job, busy.keys)
        worker.waits_for(str(busy))
        return
    except (StageError, Unreadable) as error:
        failure = str(error)  # the words alone: the error itself would hold the stage's tensors
    else:
        failure = ""
    if failure:
        agenda.failed(job, failure)
        forget()
        return
    agenda.done(job)
    if whole:
        whole.end(job, record, joules)


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
