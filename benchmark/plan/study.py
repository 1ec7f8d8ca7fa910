"""Many experiments at once as lists of overrides: a study (a file of `{overrides, sweep}` blocks) or an ad-hoc
sweep."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.plan.asked import as_list
from benchmark.plan.config import CONFIGS, ConfigError, check_words, names, near
from benchmark.plan.folders import folders
from benchmark.plan.grammar import quoted, unreadable
from benchmark.plan.words import ROLES, values_of

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FOLDER = CONFIGS / "experiment"


class Block(NamedTuple):
    """Experiments of a study that are measured together, as lists of overrides.

    `unavailable` says why they do not exist; `needs` names the kind of device (gpu) without which they say nothing, and
    `because` why.
    """

    jobs: list[list[str]]
    unavailable: str = ""
    needs: str = ""
    because: str = ""

    def not_on(self, device_kind: str) -> str:
        """Why these experiments are n/a on a kind of device; empty where they are to be run."""
        if self.unavailable:
            return self.unavailable
        if self.needs == "gpu" and device_kind != "cuda":
            return f"needs a GPU: {self.because}"
        return ""


def expand(name: str, extra: Sequence[str] = (), only: Sequence[str] = ()) -> list[Block]:
    """The blocks of study `name`, each job with `extra` (the command's own overrides, which win) at its end.

    Equal jobs are one. `only` keeps the jobs that have, for each of its patterns, an override which the pattern fits
    (`method=pruning/*`). Raises ConfigError where the study is unknown, malformed or empty, and where nothing is left.
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
        jobs = [[*(word for word in job if word.partition("=")[0] not in own), *extra] for job in _jobs(path, block)]
        new = [list(job) for job in dict.fromkeys(map(tuple, jobs)) if job not in seen]
        seen.update(map(tuple, new))
        kept = [job for job in new if all(fnmatch.filter(job, pattern) for pattern in only)]
        blocks.append(Block(kept, *(str(block.get(name, "")) for name in Block._fields[1:])))
    if not seen:
        raise ConfigError(f"{path} holds no experiment")
    left = [block for block in blocks if block.jobs]
    if not left:
        words = sorted({word for job in seen for word in job})
        raise ConfigError(f"only={' '.join(only)}: no experiment of {name} has that{near(only[-1], words)}")
    return left


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
        unknown = set(block) - set(KEYS)
        if unknown:
            raise ConfigError(f"{path}: unknown {', '.join(map(str, unknown))}{near(str(unknown.pop()), KEYS)}")
        if block.get("needs", "gpu") != "gpu" or ("needs" in block) != ("because" in block):
            raise ConfigError(f"{path}: a block needs: gpu, because: of a reason; found {block.get('needs')!r}")
    return blocks


KEYS = ("overrides", "sweep", *Block._fields[1:])


def _jobs(path: Path, block: dict[str, Any]) -> list[list[str]]:
    sweep = block.get("sweep") or {}
    choices = []
    for key, values in sweep.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: {key} sweeps over {values!r}: give a list of one value or more")
        choices.append([f"{key}={value}" for value in values])
    return [[*(block.get("overrides") or []), *choice] for choice in itertools.product(*choices)]


def sweep(words: Sequence[str]) -> list[list[str]]:
    """The override lists of an ad-hoc sweep, in Hydra's grammar: comma lists, range(), choice(), glob() of a group.

    A setting `method.X` goes to those of the swept methods that have it; the others appear once, without it. (Hydra's
    own sweeper composes the words that do not sweep before it begins.) Equal jobs are one. Raises ConfigError.
    """
    check_words(words)
    words = [as_list(word) for word in words]  # several MUI are asked of one report
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
    jobs = list(dict.fromkeys(itertools.product(*map(_swept, spoken, parsed))))
    return list(map(list, dict.fromkeys(_of_their_methods(jobs))))


def _of_their_methods(jobs: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The jobs without settings that their methods do not have, where another swept method has them. Raises ConfigError
    for one that none of several has."""
    methods = dict.fromkeys(_method_of(job) for job in jobs)
    known = {method: _settings_of(method) for method in methods}
    if len(methods) < 2 or None in known.values():
        yield from jobs  # Hydra says what one method has
        return
    of_all = {name for own in known.values() for name in own or ()}
    for job in jobs:
        # what a method starts from has settings of its own, which its file does not hold
        asked = {word: word.partition("=")[0] for word in job if word.startswith("method.")}
        asked = {word: name for word, name in asked.items() if not name.startswith("method.start.")}
        for name in asked.values():
            if name not in of_all:
                raise ConfigError(f"{name}: none of the swept methods has it{near(name, sorted(of_all))}")
        own = known[_method_of(job)] or set()
        yield tuple(word for word in job if word not in asked or asked[word] in own)


def _method_of(job: Sequence[str]) -> str:
    return next((word.removeprefix("method=") for word in job if word.startswith("method=")), "baseline")


def _settings_of(method: str) -> set[str] | None:
    """The dotted names of what a method's file sets; None where Hydra alone can read it."""
    values = values_of("method", method)
    return None if values is None else set(_dotted(values, "method"))


def _dotted(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}.{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}.{name}")


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
