"""Train and eval mode of every part of a module: set for training, or changed for a while and restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def train_what_is_trained(module: nn.Module) -> None:
    """Put `module` into train mode, except every part whose parameters are all frozen, which goes to eval mode.

    Parts without parameters take the mode of the module that holds them; a module's own `train()` is respected. The
    module itself counts as a part only where it has parameters of its own, so a loss that only owns a frozen teacher is
    in train mode.
    """
    module.train()
    own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    if own and not any(parameter.requires_grad for parameter in module.parameters()):
        module.eval()
    else:
        _rest_frozen_parts(module)


def _rest_frozen_parts(module: nn.Module) -> None:
    for part in module.children():
        trained = [parameter.requires_grad for parameter in part.parameters()]
        if trained and not any(trained):
            part.eval()
        elif trained:
            _rest_frozen_parts(part)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every part has its old mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
