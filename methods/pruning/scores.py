"""From the dotted name of a criterion to scores: finds it, calls it with its settings, and checks its answer."""

from __future__ import annotations

import copy
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from benchmark.plan.task import Recipe
from methods.pruning.criteria.subject import Scores, Subject
from methods.pruning.params import Scoring


@dataclass(frozen=True)
class Criterion:
    """A criterion's function with every setting that it takes, defaults included."""

    function: Callable[..., Scores]
    settings: Mapping[str, Any]


def score(subject: Subject, scoring: Scoring) -> Scores:
    """The scores of the subject's convolutions by a criterion; `subject.model` does not change.

    Raises ValueError where the criterion does not take the settings, or does not give each filter a finite number.
    """
    criterion = find(scoring)
    own = replace(subject, model=copy.deepcopy(subject.model)) if subject.batches else subject
    scores = criterion.function(own, **criterion.settings)
    for name in subject.layers:
        filters = cast(nn.Conv2d, subject.model.get_submodule(name)).out_channels
        if name not in scores or list(scores[name].shape) != [filters]:
            raise ValueError(f"{scoring.criterion} must return one number for each of the {filters} filters of {name}")
        if not torch.isfinite(scores[name]).all():
            raise ValueError(f"{scoring.criterion} returns a score for {name} that is not a finite number")
    return {name: scores[name].detach() for name in subject.layers}


def find(scoring: Scoring) -> Criterion:
    """The criterion that the command's configuration names, its settings checked against the function's signature.

    Raises ValueError where the function does not exist, or does not take a setting or its value.
    """
    function = named(scoring.criterion)
    taken = list(inspect.signature(function).parameters.values())[1:]
    known = {parameter.name: parameter.default for parameter in taken}
    unknown = sorted(set(scoring.settings) - set(known))
    if unknown:
        reads = ", ".join(known) or "none"
        raise ValueError(f"{scoring.criterion} takes no setting {', '.join(unknown)}; it takes {reads}")
    missing = [name for name in known if known[name] is inspect.Parameter.empty and name not in scoring.settings]
    if missing:
        raise ValueError(f"{scoring.criterion} needs a value for {', '.join(missing)}: give it under `settings`")
    hints = typing.get_type_hints(function)
    given = {name: _valid(name, value, hints.get(name, Any)) for name, value in scoring.settings.items()}
    return Criterion(function, {**known, **given})


def named(dotted: str) -> Callable[..., Any]:
    """The function named `module:function`. Raises ValueError, with the remedy, where there is none."""
    module, _, name = dotted.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"{dotted} cannot be imported ({error}): is its folder on PYTHONPATH?") from error
    if not callable(found):
        raise ValueError(f"{module} has no function {name!r}")
    return cast(Callable[..., Any], found)


def try_out(scoring: Scoring) -> None:
    """Score a network of two convolutions, so that a faulty criterion fails in milliseconds, not after training.

    Raises ValueError with the cause.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            score(_small(scoring.batches), scoring)
    except ValueError as error:
        raise ValueError(f"criterion {error}") from error
    except Exception as error:  # a criterion may be any user's function and may fail in any way
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"criterion {scoring.criterion} fails on a small network: {what}") from error


def _small(batches: int) -> Subject:
    torch.manual_seed(0)
    first, second = ([nn.Conv2d(width, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()] for width in (3, 4))
    model = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    steps = [(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4))] * min(batches, 2)
    recipe = Recipe(name="rehearsal", epochs=1, batch_size=4, lr=0.01, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Subject(model, ("0", "3"), steps, recipe)


def _valid(name: str, value: Any, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"setting {name}: {error.errors()[0]['msg']} (got {value!r})") from error
