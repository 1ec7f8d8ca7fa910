"""Many compositions at once. Hydra composes each choice of a group once, not each experiment: 80 ms for one of them are
seconds for a study of 216."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from benchmark.plan.config import ConfigError, compose
from benchmark.plan.folders import groups
from benchmark.plan.words import AS_HYDRA, as_hydra, check_words, values_of

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

Plain = dict[str, Any]


def compose_all(jobs: Sequence[Sequence[str]]) -> Sequence[DictConfig | Plain]:
    """The composition of every job, as `compose` gives it or as plain data. Raises ConfigError, as `compose` does."""
    if len(jobs) < FEW:
        return [compose(job) for job in jobs]
    composer = _Composer()
    return [composer.compose(job) for job in jobs]


FEW = 4
"""Below this, composing one by one is as fast."""


class _Composer:
    """Puts compositions together from what each choice changes in the default one."""

    def __init__(self) -> None:
        self._base: Plain = _plain(())
        self._changed: dict[tuple[str, ...], Plain] = {}
        self._checked: set[str] = set()

    def compose(self, job: Sequence[str]) -> DictConfig | Plain:
        """As `compose(job)`, which does it where choices touch the same block, or a word is more than a value."""
        self._check(job)
        words = as_hydra(job)
        choices = [word for word in words if _chooses(word)]
        merged = self._merged(choices)
        settings = _settings([word for word in words if word not in choices])
        if merged is None or settings is None:
            return compose(job)
        for override in settings:
            if not _set(merged, override.key_or_group.split("."), override.value()):
                return compose(job)  # whatever is special about it, or wrong with it
        if "${" in str(merged):  # values that stand for others: resolved when it is parsed
            from omegaconf import OmegaConf

            return OmegaConf.create(merged)
        return merged

    def _check(self, job: Sequence[str]) -> None:
        """Look at every word once, and at what must not stand together in every job."""
        new = [word for word in job if word not in self._checked]
        for word in new:
            check_words([word])
        self._checked.update(new)
        named = {word.partition("=")[0] for word in job if word.partition("=")[2] not in ("null", "")}
        if "pair" in named and named & {"model", "teacher"}:
            check_words(job)

    def _merged(self, choices: Sequence[str]) -> Plain | None:
        """The default composition with what the choices change; None where two change the same block."""
        merged, touched = dict(self._base), set[str]()
        for together in _bundles(choices):
            changed = self._changes(together)
            if touched & set(changed):
                return None
            touched |= set(changed)
            merged.update(changed)
        return {name: value for name, value in merged.items() if value is not _GONE}

    def _changes(self, choices: tuple[str, ...]) -> Plain:
        """What a choice (or several of one block) changes: blocks by name; `_GONE` for one that is taken away."""
        if choices not in self._changed:
            alone = _file_of(choices[0]) if len(choices) == 1 else None
            if alone is not None:
                self._changed[choices] = alone
                return alone
            found = _plain(choices)
            changed = {name: value for name, value in found.items() if self._base.get(name, _GONE) != value}
            changed.update({name: _GONE for name in self._base if name not in found})
            self._changed[choices] = changed
        return self._changed[choices]


_GONE = object()


def _bundles(choices: Sequence[str]) -> list[tuple[str, ...]]:
    """Choices that are composed together: what a method starts from lies in the method's block."""
    start = AS_HYDRA["start"]
    if not any(word.startswith(start) for word in choices):
        return [(word,) for word in choices]
    together = tuple(word for word in choices if word.startswith((start, "method=")))
    return [together, *((word,) for word in choices if word not in together)]


def _set(block: Plain, path: Sequence[str], value: Any) -> bool:
    """Set a value that is there already, in copies of the blocks above it; whether that was all there is to it."""
    name, rest = path[0], path[1:]
    if not isinstance(block, dict) or name not in block or isinstance(value, dict):
        return False
    if not rest:
        special = isinstance(block[name], dict) or (isinstance(value, str) and "$" in value)
        block[name] = value
        return not special
    block[name] = dict(block[name]) if isinstance(block[name], dict) else block[name]
    return _set(block[name], rest, value)


def _chooses(word: str) -> bool:
    name = word.lstrip("+~").partition("=")[0]
    return name in groups() or name in AS_HYDRA.values() or f"+{name}" in AS_HYDRA.values()


def _settings(words: Sequence[str]) -> list[Override] | None:
    """Words that set a value, parsed; None where one adds, takes away or sweeps."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except HydraException:
        return None
    plain = all(each.is_add() is each.is_delete() is each.is_sweep_override() is False for each in parsed)
    return parsed if plain else None


def _file_of(word: str) -> Plain | None:
    """The block that a choice of a whole file is; None where its file says more than values and files to begin from."""
    name, equals, choice = word.partition("=")
    group, _, block = name.partition("@")
    if not equals or group not in PLAIN_GROUPS or not choice or choice == "null":
        return None
    content = values_of(group, choice)
    return {block or group: content} if content else None


PLAIN_GROUPS = ("model", "recipe", "data", "method")
"""Groups whose files hold the values of one block. Hydra reads the others."""


def _plain(choices: Sequence[str]) -> Plain:
    from omegaconf import OmegaConf

    from benchmark.plan.config import _compose

    try:
        return cast(Plain, OmegaConf.to_container(_compose(choices)))
    except Exception as error:
        raise ConfigError(f"{' '.join(choices)}: {str(error).splitlines()[0]}") from error
