"""The training steps that a criterion looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmark.plan.task import Recipe
from benchmark.vision.training import loss_of
from methods.pruning.criteria.subject import Subject


def _nothing() -> None: ...


def train(
    subject: Subject, before_step: Callable[[], None] = _nothing, after_step: Callable[[], None] = _nothing
) -> None:
    """Train the subject's model in place, one step per batch, by the plain loss and rate of its recipe, in train mode.

    `before_step` and `after_step` are called around each step of the optimiser, while the gradients exist. Raises
    ValueError where there is no batch.
    """
    if not subject.batches:
        raise ValueError("the criterion looks at training steps but got none: its YAML must say looks_at_data: true")
    model = subject.model.train()
    loss = loss_of(subject.recipe)
    optimiser = torch.optim.SGD(model.parameters(), **sgd(subject.recipe))
    for images, labels, index in subject.batches:
        value, _ = loss(model, images, labels, index)
        optimiser.zero_grad()
        value.backward()
        before_step()
        optimiser.step()
        after_step()


def sgd(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe's optimiser."""
    return {
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "nesterov": recipe.nesterov,
    }
