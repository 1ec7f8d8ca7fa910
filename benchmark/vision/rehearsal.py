"""Rehearses a training before the first stage: the real network, forward and backward, on the meta device.

There tensors have shapes and no values, so a rehearsal takes a fraction of a second, whatever the batch size.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from benchmark.plan.task import Model, Task
from benchmark.vision.network import build_model

SIZE = 32


def rehearse(task: Task) -> None:
    """Build the task's model and train it for two steps, on the largest and the smallest batch of an epoch.

    Raises ValueError with the cause where the model cannot be built, does not answer [images, classes] in training and
    in use, learns nothing, or cannot train on the last, smaller batch of an epoch.
    """
    _rehearsed(task.model.model_dump_json(), task.data.classes, batches(task))


def batches(task: Task) -> tuple[int, ...]:
    """The batch sizes of an epoch: the recipe's, and what is left for the last batch."""
    whole = min(task.recipe.batch_size, task.train_images)
    return tuple(sorted({whole, task.train_images % whole or whole}))


@functools.lru_cache(maxsize=256)  # a study asks for the same few networks again and again
def _rehearsed(model_json: str, classes: int, sizes: tuple[int, ...]) -> None:
    model = Model.model_validate_json(model_json)
    with torch.device("meta"):
        try:
            network = build_model(model, classes)
        except Exception as error:  # a builder may fail in any way; all ways mean the same to the user
            raise ValueError(f"model {model.name} cannot be built: {type(error).__name__}: {error}") from error
        try:
            check(network, classes, sizes)
        except ValueError as error:
            raise ValueError(f"model {model.name}: {error}") from error


def check(network: nn.Module, classes: int, sizes: tuple[int, ...]) -> None:
    """Raise ValueError, with the cause, unless a network on the meta device answers and learns on batches of these
    sizes. Its gradients are lost."""
    parameter = next(network.parameters(), None)
    if parameter is None:
        raise ValueError("it has no parameters: there is nothing to train")
    for size in sizes:
        _answer(network.train(), size, classes, parameter.dtype).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if all(each.grad is None for each in network.parameters()):
        raise ValueError("its answers depend on none of its parameters, so it cannot learn")
    network.zero_grad()
    with torch.no_grad():
        for size in (1, 2):
            _answer(network.eval(), size, classes, parameter.dtype)


def _answer(network: nn.Module, size: int, classes: int, dtype: torch.dtype) -> Tensor:
    """The network's answer to a batch. Raises ValueError where it is none."""
    how = f"on a batch of {size} in {'training' if network.training else 'use'}"
    try:
        logits = network(torch.empty(size, 3, SIZE, SIZE, device="meta", dtype=dtype))
    except Exception as error:  # a module may fail in any way
        words = " ".join(str(error).split())
        if "more than 1 value per channel" in words:
            raise ValueError(
                f"its batch norm cannot train on a batch of {size}, and an epoch has one: choose a recipe.batch_size "
                "(or scale.train_images) that leaves no single image for the last batch"
            ) from error
        raise ValueError(f"it fails {how}: {type(error).__name__}: {words[:300]}") from error
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"its answer {how} must be one tensor of logits [images, classes], not {type(logits).__name__}"
        )
    if tuple(logits.shape) != (size, classes):
        raise ValueError(
            f"its answer {how} has shape {list(logits.shape)}, but {classes} classes need [{size}, {classes}]: does "
            "the builder use its argument `classes`?"
        )
    return logits
