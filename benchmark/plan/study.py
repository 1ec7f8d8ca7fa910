"""Many experiments at once as lists of overrides: a study (a file of `{overrides, sweep}` blocks) or an ad-hoc
sweep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.plan.config import CONFIGS, ConfigError, check_words, names, near
from benchmark.plan.folders import folders
from benchmark.plan.grammar import quoted, unreadable
from benchmark.plan.words import ROLES

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FOLDER = CONFIGS / "experiment"


def expand(name: str, extra: Sequence[str]) -> list[list[list[str]]]:
    """The override lists of study `name`, block by block, each with `extra` (the command's own, which win) at its end.

    Equal jobs are one. Raises ConfigError where the study is unknown, malformed or empty.
    """
    studies = _studies()
    path = studies.get(name)
    if path is None:
        raise ConfigError(f"unknown experiment {name!r}{near(name, sorted(studies))}")
    own = {word.partition("=")[0] for word in extra}
    seen: set[tuple[str, ...]] = set()
    blocks = []
    for block in _blocks(path):
        # an override of the command replaces the file's of the same name
        jobs = [[*(word for word in job if word.partition("=")[0] not in own), *extra] for job in _jobs(block)]
        new = [list(job) for job in dict.fromkeys(map(tuple, jobs)) if job not in seen]
        seen.update(map(tuple, new))
        blocks.append(new)
    if not seen:
        raise ConfigError(f"{path} holds no experiment")
    return [block for block in blocks if block]


def _studies() -> dict[str, Path]:
    """The file of every study by its name, those of --config-dir included."""
    places = [FOLDER, *(folder / "experiment" for folder in folders() if folder != CONFIGS)]
    return {
        file.relative_to(place).with_suffix("").as_posix(): file for place in places for file in place.rglob("*.yaml")
    }


def _blocks(path: Path) -> list[dict[str, Any]]:
    from omegaconf import OmegaConf

    blocks = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise ConfigError(f"{path} must be a list of blocks {{overrides: [...], sweep: {{name: [...]}}}}")
    for block in blocks:
        unknown = set(block) - {"overrides", "sweep"}
        if unknown:
            raise ConfigError(
                f"{path}: unknown {', '.join(map(str, unknown))}{near(str(unknown.pop()), ['overrides', 'sweep'])}"
            )
    return blocks


def _jobs(block: dict[str, Any]) -> list[list[str]]:
    sweep = block.get("sweep") or {}
    choices = [[f"{key}={value}" for value in values] for key, values in sweep.items()]
    return [[*(block.get("overrides") or []), *choice] for choice in itertools.product(*choices)]


def sweep(words: Sequence[str]) -> list[list[str]]:
    """The override lists of an ad-hoc sweep, in Hydra's grammar: comma lists, range(), choice(), glob() of a group.

    Hydra's own sweeper composes the words that do not sweep before it begins, and so refuses a setting that only the
    swept methods have. Equal jobs are one. Raises ConfigError.
    """
    check_words(words)
    for word in words:
        if word.lstrip("+~").startswith("hydra"):
            raise ConfigError(f"{word}: a sweep here runs no job of Hydra's, so its settings would change nothing")
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        spoken = [quoted(word) for word in words]
        parsed = OverridesParser.create().parse_overrides(spoken)
    except HydraException as error:
        raise ConfigError(unreadable(spoken, str(error).splitlines()[0])) from error
    return list(map(list, dict.fromkeys(itertools.product(*map(_swept, spoken, parsed)))))


def _swept(word: str, parsed: Override) -> list[str]:
    """The words that one word of a sweep stands for."""
    from hydra.core.override_parser.types import Glob

    key, group, value = parsed.get_key_element(), parsed.key_or_group, parsed.value()
    if isinstance(value, Glob):
        found = value.filter(names(ROLES.get(group, group)))
    elif parsed.is_discrete_sweep():
        found = list(parsed.sweep_string_iterator())
    elif parsed.is_sweep_override():
        raise ConfigError(f"{word}: an interval cannot be swept; give a list or range(start,stop,step)")
    else:
        return [word]
    if not found:
        raise ConfigError(f"{word}: nothing to sweep over")
    return [f"{key}={each}" for each in found]
