"""From a space's words to its supernet."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmark.plan.task import Task
from methods.nas.proxyless.supernet import Supernet


def supernet_of(function: str, task: Task) -> Supernet:
    """The supernet that `module:function` builds from the arguments of the task's space, initialised from torch's
    global generator."""
    module, _, name = function.partition(":")
    build: Callable[..., Supernet] = getattr(importlib.import_module(module), name)
    return build(task.model.kwargs, task.data.classes)
