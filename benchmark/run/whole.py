"""How far a study is: stages done, energy spent, time left; and the budget at which no further stage begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmark.plan.life import Life
from benchmark.records.record import Record
from benchmark.run.agenda import Agenda, Job, StageJob
from benchmark.run.forecast import Forecaster
from benchmark.run.progress import clock


@dataclass
class Whole:
    """Watches a study as it is worked. `say` gets a line before each stage."""

    told: Forecaster
    say: Callable[[str], None]
    max_wh: float | None = None
    max_hours: float | None = None
    spent_joules: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _open: dict[str, StageJob] = field(default_factory=dict)
    _stages: int = 0
    _recorded: int = 0

    def begin(self, agenda: Agenda, recorded: set[str]) -> None:
        """Count the stages of a study, and those that are recorded."""
        jobs = agenda.keys()
        self._stages, self._recorded = len(jobs), len(recorded)
        self._open = {key: job for key, job in jobs.items() if key not in recorded}

    def over(self, job: Job) -> str:
        """Why a job would go beyond the budget; empty where it would not."""
        if not isinstance(job, StageJob):
            return ""  # a finished life is measured: what it cost would be wasted otherwise
        expected = self.told.of(job.stage, job.life.machine(job.phase))
        joules = 0.0 if math.isnan(expected.joules) else expected.joules
        seconds = 0.0 if math.isnan(expected.seconds) else expected.seconds
        hours, wh = (self.elapsed_s + seconds) / 3600, (self.spent_joules + joules) / 3600
        if self.max_hours is not None and hours > self.max_hours:
            return f"max_hours={self.max_hours:g}: {self._words(job)} would end after {hours:.3g} h"
        if self.max_wh is not None and wh > self.max_wh:
            return f"max_wh={self.max_wh:g}: with {self._words(job)} it would be {wh:.3g} W.h"
        return ""

    def next(self, failures: Sequence[str]) -> None:
        """Say how far the study is."""
        left = [self.told.of(job.stage, job.life.machine(job.phase)) for job in self._open.values()]
        known = [each.seconds for each in left if not math.isnan(each.seconds)]
        words = [f"{self._stages - len(self._open)} of {self._stages} stages", f"{self.spent_joules / 3600:.4g} W.h"]
        words += [f"about {clock(math.fsum(known))} left" if known else "", _failed(failures)]
        self.say("study: " + ", ".join(filter(None, words)))

    def end(self, job: Job, record: Record | None, joules: float = math.nan) -> None:
        """Book what a job took."""
        if isinstance(job, StageJob):
            self._open.pop(job.key, None)
        if record is not None and isinstance(job, StageJob):
            self.told.learn(job.stage, record.joules, record.seconds)
            joules = record.joules + record.repeated_joules
        self.spent_joules += 0.0 if math.isnan(joules) else joules

    @property
    def elapsed_s(self) -> float:
        """Seconds since the study began."""
        return time.monotonic() - self._began

    def _words(self, job: StageJob) -> str:
        return f"{job.stage.name} of {_name(job.life)}"


def _failed(failures: Sequence[str]) -> str:
    return f"{len(failures)} failed" if failures else ""


def _name(life: Life) -> str:
    return f"{life.experiment.method['name']} on {life.task.model.name}"
