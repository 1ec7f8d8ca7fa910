"""Builds a method's modules from its settings, and rehearses whether the method fits a pair of networks."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import nn

from benchmark.plan.task import Task
from benchmark.vision.builders import build_model
from benchmark.vision.models.repdistiller.interface import FeatureNetwork
from methods.distillation.params import Choice, TermChoice
from methods.distillation.term import Answers, Batch, Scene, Shape, Term, View

IMAGES = 2
"""Images of a rehearsal; batch normalisation of 1x1 maps, and relations within a batch, need two."""


def shapes_of(network: nn.Module) -> tuple[Shape, ...]:
    """The shapes of a network's features for a 32x32 image, from the meta device; empty where it exposes none."""
    if not isinstance(network, FeatureNetwork):
        return ()
    twin: Any = copy.deepcopy(network).to("meta", torch.float32).eval()
    features, _ = twin.features(torch.zeros(1, 3, 32, 32, device="meta"))
    return tuple(tuple(feature.shape[1:]) for feature in features)


def kind_of(name: str) -> type[Term]:
    """The term class named `module:Class`. Raises ValueError where it does not exist."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"term {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Term)):
        raise ValueError(f"term {name}: {module} has no term of that name")
    return found


def build_term(choice: TermChoice, scene: Scene) -> Term:
    """The chosen term for a scene, with new modules from torch's global generator.

    Raises ValueError for settings that it does not know, and for a pair of networks that it cannot compare.
    """
    kind = kind_of(choice.kind)
    try:
        settings = kind.Settings.model_validate(choice.settings)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise ValueError(f"settings of {choice.kind}: {found}") from error
    views = {"student": (kind.student_view, scene.student), "teacher": (kind.teacher_view, scene.teacher)}
    for side, (view, shapes) in views.items():
        if view is not View.LOGITS and not shapes:
            raise ValueError(f"{choice.kind} needs features, but the {side} exposes none: choose one of repdistiller/")
    return cast(Any, kind)(scene, settings)  # type: ignore[no-any-return] # every term is built alike


def freeze_but(network: nn.Module, trained: list[nn.Module]) -> None:
    """Let only the `trained` modules of a network require a gradient, in place."""
    network.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)


def trained_at_first(term: Term, student: nn.Module) -> list[nn.Module]:
    """The student's modules that an initial term trains: stem and stages, or none where it does not use the student."""
    return cast(FeatureNetwork, student).feature_modules() if term.uses_student else []


def handed_on(term: Term) -> Mapping[str, torch.Tensor]:
    """The tensors of an initial term that the main term needs, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in term.state_dict().items()} if term.hands_on else {}


def rehearse(choice: Choice, scene: Scene, classes: int) -> None:
    """Build a method's terms for a scene and run each on features of its shapes, all on the meta device.

    Raises ValueError with the reason where the method does not fit this pair. `scene` must not be `published`, because
    its draws need real numbers.
    """
    if choice.initial is not None:
        initial = _try(choice.initial, scene, classes)
        scene = replace(scene, prepared=dict(initial.state_dict()) if initial.hands_on else {})
    _try(choice.term, scene, classes)


def _try(choice: TermChoice, scene: Scene, classes: int) -> Term:
    with torch.device("meta"):
        term = build_term(choice, scene).to("meta").train()
        student, teacher = (
            Answers([torch.zeros(IMAGES, *shape) for shape in shapes], torch.zeros(IMAGES, classes))
            for shapes in (scene.student, scene.teacher)
        )
        numbers = torch.zeros(IMAGES, dtype=torch.long)
        try:
            term(student, teacher, Batch(numbers, numbers))
        except RuntimeError as error:  # no constructor has checked this case, so torch's message is the only reason
            raise ValueError(f"{choice.kind} cannot compare these networks: {error}") from error
    return term


def rehearse_pair(choice: Choice, task: Task, images: int) -> None:
    """Rehearse a method for a task's own student and teacher.

    The classes share the training `images` about equally. Raises ValueError with the reason, also where the last batch
    of an epoch would be too small.
    """
    assert task.teacher is not None, "a plan without a teacher was refused"
    classes = task.data.classes
    with torch.device("meta"):
        student, teacher = build_model(task.model, classes), build_model(task.teacher, classes)
    scene = Scene(shapes_of(student), shapes_of(teacher), torch.arange(images, device="cpu") % classes)
    rehearse(choice, scene, classes)
    last = images % task.recipe.batch_size or min(images, task.recipe.batch_size)
    for part in filter(None, (choice.initial, choice.term)):
        least = kind_of(part.kind).least_images
        if last < least:
            raise ValueError(
                f"{part.kind} compares images with each other and needs {least} in a batch, but the last batch "
                f"of an epoch would hold {last}: choose another recipe.batch_size than {task.recipe.batch_size}"
            )
