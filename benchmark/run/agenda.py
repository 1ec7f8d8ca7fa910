"""What there is to do in a study and in which order, whoever does it: stages, each once, then measurements in groups.
An executor takes jobs, does them where it likes, and says how they ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from benchmark.plan.life import Life
from benchmark.plan.stage import Phase, Stage
from benchmark.records.files import StoreError, Unreadable
from benchmark.records.store import Store
from benchmark.run.state import measurement

GROUP = 8
"""Engines whose measurements take turns. More would hold more of them on the device, and lose more when interrupted."""
BUSY_S = 2.0
"""How long a stage that another process runs is left alone before it is looked at again."""


class Pending(NamedTuple):
    """An inference measurement to be taken: of the engine of `life`, as `stage`."""

    life: Life
    stage: Stage


class StageJob(NamedTuple):
    """A stage to be run, for the first life that needs it."""

    life: Life
    phase: Phase
    stage: Stage
    key: str


class MeasureJob(NamedTuple):
    """Inference measurements to be taken together."""

    group: Mapping[str, Pending]


Job = StageJob | MeasureJob


@dataclass
class _Block:
    """Lives that are measured together: those with stages to run, and the measurements that wait."""

    lives: list[Life]
    pending: dict[str, Pending] = field(default_factory=dict)


class Agenda:
    """The jobs of some blocks of lives. A life whose stage fails ends alone, with all that rest on that stage."""

    def __init__(
        self,
        store: Store,
        blocks: Sequence[Sequence[Life]],
        again: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._say = say
        self.failures: list[str] = []
        self.stopped = False
        self.left: list[Life] = []
        self._store = store
        self.again_measured = again
        self._blocks = [_Block(list(block)) for block in blocks]
        self._steps: dict[int, list[StageJob]] = {
            id(life): [StageJob(life, phase, stage, life.key(stage)) for phase, stage in life.steps()]
            for block in blocks
            for life in block
        }
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._running: set[str] = set()
        self._busy: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to take, and nothing taken is still running."""
        return not self._running and not any(block.lives or block.pending for block in self._blocks)

    def keys(self) -> dict[str, StageJob]:
        """Every stage of the study by its key, once."""
        return {job.key: job for steps in self._steps.values() for job in steps}

    def take(self) -> Job | None:
        """The next job; None where nothing can begin now, or where nothing is left (`finished` tells which)."""
        for block in self._blocks:
            for life in list(block.lives):
                job = self._next(block, life)
                if len(block.pending) >= GROUP:
                    whole_group = self._measuring(block)
                    if whole_group.group:
                        return whole_group
                if job is not None:
                    self._running.add(job.key)
                    return job
            if block.pending and not block.lives:
                job_of_rest = self._measuring(block)
                if job_of_rest.group:
                    return job_of_rest
        return None

    def done(self, job: Job) -> None:
        """A job came to its end."""
        if isinstance(job, StageJob):
            self._running.discard(job.key)
            self._done.add(job.key)
        else:
            self._running.difference_update(job.group)

    def failed(self, job: Job, why: str) -> None:
        """A job failed; what rests on it is not tried."""
        self.failures.append(why)
        if isinstance(job, StageJob):
            self._running.discard(job.key)
            self._failed[job.key] = why
        else:
            self._running.difference_update(job.group)

    def busy(self, job: Job, keys: Sequence[str] = ()) -> None:
        """Another process has the job (of a group: those keys): look again in a while."""
        later = time.monotonic() + BUSY_S
        if isinstance(job, StageJob):
            self._running.discard(job.key)
            self._busy[job.key] = later
            return
        self._running.difference_update(job.group)
        for key in keys:
            self._busy[key] = later
            self._blocks[-1].pending[key] = job.group[key]

    def again(self, job: Job) -> None:
        """Nobody does the job any more (its worker was lost): it is there to be taken."""
        if isinstance(job, StageJob):
            self._running.discard(job.key)
            return
        self._running.difference_update(job.group)
        self._blocks[-1].pending.update(job.group)

    def stop(self) -> None:
        """Begin no stage any more. Lives whose stages are done are still measured; the others are `left`."""
        self.stopped = True
        for block in self._blocks:
            for life in list(block.lives):
                self._next(block, life)  # one that has all its stages waits for its measurement
            self.left += block.lives
            block.lives.clear()

    # --- how far lives are -----------------------------------------------------------------------------------------

    def _next(self, block: _Block, life: Life) -> StageJob | None:
        """The step that a life needs now, if it can begin; a life that has ended leaves its block."""
        for job in self._steps[id(life)]:
            if job.key in self._done:
                continue
            if job.key in self._failed:
                block.lives.remove(life)
                return None
            waits = job.key in self._running or self._busy.get(job.key, 0.0) > time.monotonic()
            return None if waits else job
        block.lives.remove(life)
        try:
            self._await_measurement(block, life)
        except Unreadable as error:  # a damaged record ends this life alone
            self.failures.append(str(error))
        return None

    def _await_measurement(self, block: _Block, life: Life) -> None:
        inference = measurement(life, self._store)
        if inference is None:
            raise StoreError(
                f"the record of engine {life.key(life.build)} vanished during the run: was it removed? Run again"
            )
        key = life.key(inference)
        if key in self._done:
            return
        self._done.add(key)  # lives of one shape share a measurement
        if self.again_measured or not self._store.measurements(life.place.infer_machine, key):
            block.pending[key] = Pending(life, inference)
        else:
            self._say(f"{Phase.INFER:<8} {inference.name} {key}: recorded")

    def _measuring(self, block: _Block) -> MeasureJob:
        free = (key for key in block.pending if self._busy.get(key, 0.0) <= time.monotonic())
        group = {key: block.pending[key] for key in list(islice(free, GROUP))}
        for key in group:
            del block.pending[key]
        self._running.update(group)
        return MeasureJob(group)


def cheapest_first(lives: Sequence[Life], seconds: Callable[[Life, Phase, Stage], float]) -> list[Life]:
    """Lives in the order in which each next one takes the least time, given what the ones before have made: so an
    interruption at any moment leaves as many complete rows as possible. What is unknown comes last, as it was given."""
    waiting, ordered, made = list(lives), list[Life](), set[str]()
    known: dict[str, float] = {}
    steps = {id(life): [(life.key(stage), phase, stage) for phase, stage in life.steps()] for life in lives}

    def left(life: Life) -> float:
        total = 0.0
        for key, phase, stage in steps[id(life)]:
            if key not in known:
                told = seconds(life, phase, stage)
                known[key] = math.inf if math.isnan(told) else told
            total += 0.0 if key in made else known[key]
        return total

    while waiting:
        life = min(waiting, key=left)
        waiting.remove(life)
        ordered.append(life)
        made.update(key for key, _, _ in steps[id(life)])
    return ordered


def lives_of(blocks: Sequence[Sequence[Life]]) -> Iterator[Life]:
    """All lives of some blocks."""
    return (life for block in blocks for life in block)
