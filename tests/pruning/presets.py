"""The pruners as their YAML files state them, so that no test types a criterion's facts again."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from benchmark.plan import config
from methods.pruning.params import Choice, Scoring
from methods.pruning.plan import Pruning

NAMES = ("l1", "l2", "fpgm", "apoz", "taylorfo", "activation_mean")
LOOKING = ("apoz", "taylorfo", "activation_mean")


@cache
def _words(name: str) -> Any:
    return OmegaConf.to_container(config.compose([f"method=pruning/{name}"]).method)


def words(name: str, settings: dict[str, Any] | None = None, **changed) -> dict[str, Any]:
    """The `method:` block of configs/method/pruning/`name`.yaml, with values changed; `settings` are the criterion's."""
    plain = _words(name)
    return {**plain, **changed, "settings": {**plain["settings"], **(settings or {})}}


def pruning(name: str, settings: dict[str, Any] | None = None, **changed) -> Pruning:
    """The method of a preset."""
    return Pruning(**{k: v for k, v in words(name, settings, **changed).items() if k not in ("_target_", "name")})


def scoring(name: str, batches: int = 1, **settings) -> Scoring:
    """How a preset scores, with the criterion's `settings` changed; `batches` count where it looks at data."""
    return pruning(name, settings, statistics_batches=batches).choice(0.5).scoring


def choice(
    name: str, sparsity: float = 0.5, batches: int = 1, settings: dict[str, Any] | None = None, **changed
) -> Choice:
    """Which filters a preset chooses."""
    return pruning(name, settings, statistics_batches=batches, **changed).choice(sparsity)
