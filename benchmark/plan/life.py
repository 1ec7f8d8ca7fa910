"""A life cycle as it will run: an experiment's plan, one per seed, and the stages that the harness adds. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from benchmark.plan.config import NO_PARAMETERS, ConfigError, Experiment
from benchmark.plan.deployment import (
    Here,
    Measurement,
    asked,
    build_stage,
    choose_engine,
    measure_stage,
    with_calibration,
    without_search,
)
from benchmark.plan.run_file import RunFile, RunPass, RunStage, Words
from benchmark.plan.stage import TEC_PHASES, Bound, Phase, Plan, Stage, digest_of, kind_of
from benchmark.plan.task import Data, DeployPrecision, Task


@dataclass(frozen=True)
class Place:
    """Whose records count, in training and in inference, and the version of the engine that inference runs on."""

    train_machine: str
    infer_machine: str
    engine_version: str

    def machine(self, phase: Phase) -> str:
        """The machine of a phase."""
        return self.train_machine if phase in TEC_PHASES else self.infer_machine


@dataclass(frozen=True)
class Life:
    """One experiment with one seed: its task, its plan, the engine-building stage, and where records are looked up."""

    experiment: Experiment
    task: Task
    plan: Plan
    build: Stage
    place: Place

    @property
    def name(self) -> str:
        """A readable slug and a short digest of the plan: the seeds of one plan share it."""
        return f"{self.experiment.slug(self.plan.deploy.name)}-{self.digest[:8]}"

    def steps(self) -> tuple[tuple[Phase, Stage], ...]:
        """All stages whose keys are known before the first one runs, in order."""
        return (*self.plan.steps, (Phase.DEPLOY, self.build))

    def data_sets(self) -> set[Data]:
        """All data sets that its stages look at: a search may have one of its own."""
        found = {without_search(self.task.data)}
        for _, stage in self.steps():
            for given in (stage.params, getattr(stage.params, "task", None)):
                data = getattr(given, "data", None)
                found |= {without_search(data)} if isinstance(data, Data) else set()
        return found

    def key(self, stage: Stage) -> str:
        """A stage's key in this life."""
        return stage.key(self._binding)

    def _binding(self, stage: Stage) -> str:
        machine = self.place.machine(self.phase(stage))
        if stage.bound is Bound.DEVICE:
            return machine
        return f"{machine}/{self.experiment.engine}-{self.place.engine_version}"

    def phase(self, stage: Stage) -> Phase:
        """The phase a stage of this life belongs to; what is no step of the plan is inference."""
        return next((phase for phase, listed in self.steps() if listed == stage), Phase.INFER)

    def machine(self, phase: Phase) -> str:
        """The machine whose record of a phase counts."""
        return self.place.machine(phase)

    def measurement(self, built: Mapping[str, Any]) -> Stage:
        """The inference measurement of this life, from the details of its engine's record: only that knows what the
        engine executes."""
        params = Measurement(
            signature=built["signature"],
            data=without_search(self.task.data),
            test_images=self.task.scale.test_images,
            engine=self.experiment.engine,
            precision=self.plan.deploy.name,
            protocol=self.experiment.inference,
        )
        return measure_stage(params)

    @cached_property
    def digest(self) -> str:
        """What tells plans apart, the seed left out: two seeds of one plan have the same.

        By keys, so that what changes no key changes no plan: a new setting with a default, or a default written out.
        """
        known = [self._twin.phase_keys(), self._asked(), vars(self.place)]
        unmeasured = {str(phase): why for phase, why in self.plan.unmeasured.items()}
        return digest_of([*known, unmeasured] if unmeasured else known)

    @cached_property
    def _twin(self) -> Life:
        """The same life with seed 0."""
        return _life(self.experiment, self.task.model_copy(update={"seed": 0}), self.place)

    def phase_keys(self) -> list[list[str]]:
        """Phase and key of every step."""
        return [[str(phase), self.key(stage)] for phase, stage in self.steps()]

    def run_file(self, created: str) -> RunFile:
        """All that rows need of this life, to be kept beside the records."""
        return RunFile(
            experiment=self.name,
            plan=self.digest,
            seed=self.task.seed,
            words=self._words(),
            settings=self._settings(),
            train_machine=self.place.train_machine,
            infer_machine=self.place.infer_machine,
            measurement=self._asked(),
            measurement_version=self._measurement.version,
            stages=tuple(self._run_stage(phase, stage) for phase, stage in self.steps()),
            unmeasured=dict(self.plan.unmeasured),
            created=created,
        )

    def _asked(self) -> str:
        return asked(self._measurement)

    @property
    def _measurement(self) -> Measurement:
        """What the inference measurement is asked for; the signature comes with the engine."""
        return cast(Measurement, self.measurement({"signature": ""}).params)

    def _run_stage(self, phase: Phase, stage: Stage) -> RunStage:
        return RunStage(
            phase=phase,
            kind=kind_of(phase),
            key=self.key(stage),
            fn=stage.fn,
            version=stage.params.version,
            inputs={name: self.key(needed) for name, needed in stage.inputs.items()},
            machine=self.machine(phase),
            passes=_passes(stage) if kind_of(phase) == "TEC" else None,
        )

    def _words(self) -> Words:
        task = self.task
        return Words(
            method=_named(self.experiment.method),
            model=task.model.name,
            teacher=task.teacher.name if task.teacher else "",
            data=task.data.shown,
            classes=task.data.classes,
            recipe=task.recipe.name,
            scale=task.scale.name,
            train_images=task.train_images,
            test_images=task.test_images,
            max_epochs=task.scale.max_epochs,
            profile=task.profile,
            train_precision=task.train_precision,
            deploy_precision=self.plan.deploy.name,
            engine=self.experiment.engine,
            engine_version=self.place.engine_version,
        )

    def _settings(self) -> dict[str, str]:
        """Every setting by its dotted name, as the command could give it."""
        task = self.task.model_dump(mode="json", exclude={"seed", "deploy_precision"})  # words have the plan's own
        if not self.task.data.own:  # a setting that older run files lack would look like a difference from them
            task["data"] = {name: task["data"][name] for name in ("name", "classes", "search")}
        for block in filter(None, (task["model"], task["teacher"])):
            if not block["code"]:  # same
                del block["code"]
        method = {name: value for name, value in self.experiment.method.items() if name not in NO_PARAMETERS}
        inference = self.experiment.inference.model_dump(mode="json")
        return dict(_flat({**task, "method": method, "inference": inference}))


def _passes(stage: Stage) -> tuple[RunPass, ...] | None:
    effort = stage.effort()
    if effort is None:
        return None
    return tuple(
        RunPass(model=each.model.name, images=each.images, trains=each.trains, times=each.times)
        for each in effort.passes
    )


def _named(method: Mapping[str, Any]) -> str:
    """A method's name and, where it starts from another's network, that one's: 'pruning/l1 after distillation/kd'."""
    start = method.get("start")
    return (
        f"{method['name']} after {_named(start)}"
        if isinstance(start, Mapping) and start.get("name")
        else method["name"]
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "_target_":  # a run file names no code
            yield prefix + name, str(value)


def undeployable(life: Life, here: Here) -> str:
    """Why the engine of a life cannot run its network here; empty where it can, or where inference is of another
    machine: what that one can do, only its own runs tell."""
    kind = here.kind(life.experiment.engine)
    if kind is None or life.place.infer_machine != here.machine:
        return ""
    precision = life.plan.deploy.name
    why = kind.why_unavailable(precision, here.device_kind)
    if not why:
        return ""
    return f"deploy_precision={precision} with engine={kind.name}: {why}{_engine_here(here, precision)}"


def _engine_here(here: Here, precision: DeployPrecision) -> str:
    """What engine=auto would take, where that can run the precision."""
    try:
        kind = here.kind(choose_engine(here, "auto").engine)
    except ValueError:
        return ""
    able = kind is not None and not kind.why_unavailable(precision, here.device_kind)
    return f"; engine=auto takes {kind.name} here" if kind is not None and able else ""


def place_of(experiment: Experiment, here: Here, runs: Iterable[RunFile]) -> Place:
    """Where an experiment's stages are looked up when it is run on this machine; `runs` are those known so far.

    Raises ConfigError where inference records of another machine are asked for and no run there is among them.
    """
    train, infer = experiment.hardware.train or here.machine, experiment.hardware.infer or here.machine
    if infer == here.machine:
        kind = here.kind(experiment.engine)
        assert kind is not None, "parsing refuses an engine that does not exist"
        return Place(train, infer, kind.version())
    # engines are bound to the library version over there, which only its own runs can tell
    there = [run for run in runs if run.infer_machine == infer and run.words.engine == experiment.engine]
    if not there:
        raise ConfigError(
            f"hardware.infer={infer}: no run of that machine with engine={experiment.engine} is stored here"
        )
    return Place(train, infer, max(there, key=lambda run: run.created).words.engine_version)


def lives(experiment: Experiment, place: Place) -> list[Life]:
    """The experiment's life cycles at a place, one a seed."""
    return [_life(experiment, task, place) for task in experiment.tasks()]


def _life(experiment: Experiment, task: Task, place: Place) -> Life:
    plan = with_calibration(experiment.build_method().plan(task), task)
    return Life(experiment, task, plan, build_stage(plan, task, experiment.engine), place)
