"""Builds the supernet of a space."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from methods.nas.proxyless.supernet import Supernet
from methods.nas.spaces import Space


def supernet_of(space: Space, classes: int) -> Supernet:
    """The supernet that the space's function builds, initialised from torch's global generator.

    Raises ValueError where its edges are not those of the space.
    """
    module, _, name = space.supernet.partition(":")
    build: Callable[..., Supernet] = getattr(importlib.import_module(module), name)
    supernet = build(space.model.kwargs, classes)
    if [tuple(edge.ops) for edge in supernet.edges] != list(space.edges):
        raise ValueError(f"{space.supernet} builds other edges than the space {space.model.name} declares")
    return supernet
