"""A life cycle as it will be worked on a machine: an experiment's plan, one a seed, with the stages the harness
appends. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.plan.config import ConfigError, Experiment
from benchmark.plan.deployment import Measurement, build_stage, measure_stage
from benchmark.plan.stage import TEC_PHASES, Phase, Plan, Stage
from benchmark.plan.task import Task
from benchmark.records.provenance import now, package_version

if TYPE_CHECKING:
    from benchmark.energy import Device
    from benchmark.records.store import Store


@dataclass(frozen=True)
class Place:
    """Whose records count: the machines of training and inference, and what binds device-bound stages."""

    train_machine: str
    infer_machine: str
    binding: str


@dataclass(frozen=True)
class Life:
    """One experiment with one seed: its task, its method's plan, the engine-building stage, and where records are
    looked up."""

    experiment: Experiment
    task: Task
    plan: Plan
    build: Stage
    place: Place

    def steps(self) -> tuple[tuple[Phase, Stage], ...]:
        """All stages whose keys are known before any work, in order."""
        return (*self.plan.steps, (Phase.DEPLOY, self.build))

    def key(self, stage: Stage) -> str:
        """A stage's key at this place."""
        return stage.key(self.place.binding)

    def phase(self, stage: Stage) -> Phase:
        """The phase a stage of this life belongs to."""
        key = self.key(stage)
        return next(phase for phase, listed in self.steps() if self.key(listed) == key)

    def machine(self, phase: Phase) -> str:
        """The machine whose record of a phase counts."""
        return self.place.train_machine if phase in TEC_PHASES else self.place.infer_machine

    def measurement(self, signature: str) -> Stage:
        """The inference measurement of a network shape under the experiment's protocol."""
        params = Measurement(
            signature=signature,
            data=self.task.data.name,
            scale=self.task.scale.name,
            engine=self.experiment.engine,
            precision=self.plan.deploy.name,
            protocol=self.experiment.inference,
        )
        return measure_stage(params)

    def recorded(self, store: Store) -> bool:
        """Whether every stage and the inference have their record."""
        steps = [store.record(self.machine(phase), self.key(stage)) for phase, stage in self.steps()]
        if steps[-1] is None or not all(steps):
            return False
        measured = self.measurement(str(steps[-1].details["signature"]))
        return bool(store.measurements(self.place.infer_machine, self.key(measured)))

    def run_file(self) -> tuple[str, dict[str, Any]]:
        """Name and content of the file by which `report` finds this life again: the whole experiment, resolved."""
        one = self.experiment.model_copy(update={"seeds": 1, "task": self.task})
        name, version = self.experiment.name(), self.place.binding.rpartition("/")[2]
        content = {
            "experiment": name,
            "seed": self.task.seed,
            "config": one.model_dump(mode="json", exclude={"paths"}),  # whose machine it was is nobody's business
            "train_machine": self.place.train_machine,
            "infer_machine": self.place.infer_machine,
            "binding": self.place.binding,
            "created": now(),
        }
        return f"{name}-s{self.task.seed}-{version}", content


def place_of(experiment: Experiment, device: Device, store: Store) -> Place:
    """Where an experiment's stages are looked up when it is run on `device`.

    Raises ConfigError where inference records of other hardware are asked for and no run there is stored.
    """
    train, infer = experiment.hardware.train or device.machine, experiment.hardware.infer or device.machine
    if infer == device.machine:
        return Place(train, infer, f"{infer}/{experiment.engine}-{package_version(experiment.engine)}")
    # engines are bound to the library version over there, which only its own runs can tell
    engine = f"{infer}/{experiment.engine}-"
    there = [run for run in store.runs() if str(run["binding"]).startswith(engine)]
    if not there:
        raise ConfigError(f"hardware.infer={infer}: no run of that hardware lies under {store.results}/runs")
    return Place(train, infer, str(max(there, key=lambda run: str(run["created"]))["binding"]))


def lives(experiment: Experiment, place: Place) -> list[Life]:
    """The experiment's life cycles at a place, one a seed."""
    method, found = experiment.build_method(), []
    for task in experiment.tasks():
        plan = method.plan(task)
        found.append(Life(experiment, task, plan, build_stage(plan, task, experiment.engine), place))
    return found
