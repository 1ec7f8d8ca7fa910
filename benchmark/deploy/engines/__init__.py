"""All kinds of engines: each module of this package holds one `EngineKind` as `KIND`, and imports no engine itself.

A new engine is a new module. Importing this package imports no torch, so that planning can ask it for versions.
"""

from __future__ import annotations

import importlib
import pkgutil

from benchmark.plan.deployment import EngineKind


def kinds() -> tuple[EngineKind, ...]:
    """Every kind of engine the suite knows, by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").KIND for name in modules)


def kind_named(name: str) -> EngineKind:
    """The kind called `name`; parsing has checked the name already. Raises LookupError for an unknown one."""
    return next(kind for kind in kinds() if kind.name == name)
