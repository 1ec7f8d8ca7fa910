"""The stage functions of distillation: initial, distil. Reading, proving, counting and testing are off the meter."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from benchmark.plan.stage import Bench, Network, Output
from benchmark.vision.data import Loaders, loaders
from benchmark.vision.macs import count
from benchmark.vision.network import build_model, freeze, load, prove
from benchmark.vision.training import TrainingError, fit, seed_everything
from methods.distillation.objective import INITIAL, AnsweringTeacher, Objective
from methods.distillation.params import Distilling, Learning, Preparing
from methods.distillation.teacher import teacher_of
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, freeze_but, handed_on, shapes_of, trained_at_first


class Ready(NamedTuple):
    """The student, the batches and the teacher at the beginning of a stage."""

    student: nn.Module
    teacher: AnsweringTeacher
    batches: Loaders
    scene: Scene


def initial(bench: Bench, params: Preparing, teacher: Output) -> Output:
    """Train what a method trains before the student learns from labels.

    These are the student's stem and stages (AB, FSP), or the method's own modules (FT). Returns the student, and the
    tensors that the main stage needs.
    """
    task = params.task
    student, asked, batches, scene = _ready(bench, params, teacher)
    term = build_term(params.term, scene)
    freeze_but(student, trained_at_first(term, student))
    objective = Objective(asked, term, INITIAL, params.no_waste)
    try:
        history = fit(bench, student, batches, objective, task)
    except TrainingError as error:
        raise TrainingError(
            f"initial stage: {error}; its rate is method.initial_lr, if that has an entry for the student"
        ) from error
    values = {"loss_first_epoch": history.loss[0], "loss": history.loss[-1], "epochs": len(history.loss)}
    with bench.paused():
        values |= {"trained_params": _trained(student, objective)}
        student.requires_grad_(True)  # the classifier was frozen only for this stage
        network = freeze(student, task.model, task.data.classes, task.recipe)
    # no accuracies: the classifier is untrained, and without waste the logits may be the teacher's
    details = {"loss": history.loss, "execution": history.execution}
    return Output(network=network, arrays=handed_on(term) or None, values=values, details=details)


def distil(bench: Bench, params: Distilling, teacher: Output, initial: Output | None = None) -> Output:
    """Train a new student, or that of an initial stage, by labels and teacher; returns the student of the last
    epoch."""
    task = params.task
    student, asked, batches, scene = _ready(bench, params, teacher, initial)
    objective = Objective(asked, build_term(params.term, scene), params.weights, params.no_waste)
    history = fit(bench, student, batches, objective, task)
    values = {**history.values(), "loss_first_epoch": history.loss[0], "teacher_acc_pct": teacher.values["acc_pct"]}
    with bench.paused():
        values |= {"trained_params": _trained(student, objective)}
        network = freeze(student, task.model, task.data.classes, task.recipe)
        parameters, macs = count(student)
    values |= {"params": parameters, "macs": macs}
    details = {"history": vars(history), "execution": history.execution}
    return Output(network=network, values=values, details=details)


def _ready(bench: Bench, params: Learning, teacher: Output, earlier: Output | None = None) -> Ready:
    """A new student or that of an earlier stage, its batches, and the teacher.

    A new student has the first weights of its own baseline, because the same seed draws the same weights. The random
    draws of the batches continue after `first_epoch` epochs.
    """
    task, classes = params.task, params.task.data.classes
    seed_everything(task.seed, params.first_epoch)
    student = build_model(task.model, classes) if earlier is None else load(_network(earlier))
    taught, asked = teacher_of(_network(teacher), task)
    with bench.paused():  # neither line is training; the images are in memory from here on
        prove(student, task.model, classes)  # a network that cannot be stored is refused before it is trained
        batches = loaders(task, bench.data_dir, bench.device, params.first_epoch)
    scene = Scene(
        student=shapes_of(student),
        teacher=shapes_of(taught),
        labels=batches.train.images.labels.cpu(),
        published=task.profile == "published",
        prepared=(earlier.arrays if earlier else None) or {},
    )
    return Ready(student, asked, batches, scene)


def _network(given: Output) -> Network:
    assert isinstance(given.network, Network), "a stage of distillation needs a network"
    return given.network


def _trained(*owners: nn.Module) -> int:
    """The number of scalars that the optimiser changed."""
    return sum(p.numel() for owner in owners for p in owner.parameters() if p.requires_grad)
