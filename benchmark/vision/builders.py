"""Which functions may build a network: a name in a file or an argument is data, and must not choose the code to run.

The module imports no torch until a network is built, so that code that reads the command can call `trust`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.plan.task import Model

if TYPE_CHECKING:
    from torch import nn

ZOO = "benchmark.vision.models"
_ZOO_BUILDER = re.compile(re.escape(ZOO) + r"(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z][A-Za-z0-9_]*")
_trusted: set[str] = set()


class BuilderError(UserError):
    """A builder may not run, or cannot be called with the arguments in its file; the message names the builder."""


def trust(*builders: str) -> None:
    """Let these builders (`module:function`) run in this process, in whatever module they lie.

    Only for names from the present command, never for names from a file.
    """
    _trusted.update(builders)


def build(builder: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """A new module that `module:function` makes from `kwargs`, initialised from torch's global generator.

    Runs functions defined in a module under `benchmark.vision.models`, and builders given to `trust`. Raises
    BuilderError for any other builder, before it imports anything, and for arguments that are not plain data (JSON's
    values). A builder that builds other networks by name calls this function too, so their arguments pass the same
    check.
    """
    function = _trusted_function(builder) if builder in _trusted else _zoo_function(builder)
    if not _is_data(dict(kwargs)):
        raise BuilderError(f"the arguments of builder {builder!r} must be plain data: numbers, texts, lists, mappings")
    try:
        inspect.signature(function).bind(**kwargs)
    except TypeError as error:
        given = ", ".join(kwargs)
        raise BuilderError(
            f"builder {builder!r} does not take these arguments: {error}; it is called with {given}: the kwargs of its "
            "file, and classes=, the number of classes"
        ) from error
    from torch import nn  # here, not above: see the module's docstring

    module = function(**kwargs)
    if not isinstance(module, nn.Module):
        raise BuilderError(f"builder {builder!r} must return an nn.Module, not a {type(module).__name__}")
    return module


def build_model(model: Model, classes: int) -> nn.Module:
    """A new network with `classes` outputs; `model` is named by the present command, so its builder is trusted."""
    trust(model.builder)
    return build(model.builder, {**model.kwargs, "classes": classes})


def _trusted_function(builder: str) -> Callable[..., Any]:
    module, _, name = builder.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _zoo_function(builder: str) -> Callable[..., Any]:
    """The function, if its own module defines it: a name that the module only imports belongs to other code."""
    refused = BuilderError(
        f"builder {builder!r} may not run: a file may name only functions defined under {ZOO}, or the builder that "
        "the present command names (model.builder=...)"
    )
    if not _ZOO_BUILDER.fullmatch(builder):
        raise refused
    module, _, name = builder.partition(":")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise BuilderError(f"builder {builder!r} does not exist: {error}") from error
    if type(function) is not FunctionType or (function.__module__, function.__qualname__) != (module, name):
        raise refused
    return function


def _is_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_data(part) for name, part in value.items())
    if isinstance(value, list | tuple):
        return all(_is_data(part) for part in value)
    return value is None or isinstance(value, str | int | float)
