"""The words of a command: checked against what there is to choose, and said as Hydra takes them. Imports no Hydra."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from benchmark.plan.folders import CONFIGS, ConfigError, folders, groups, names, near
from benchmark.plan.grammar import check_form, homes_of, quoted

ROLES = {"teacher": "model", "teacher_recipe": "recipe", "start": "method"}
"""Words that choose from the group of another: a teacher is a model, too; what a method starts from is one."""

AS_HYDRA = {"teacher": "model@teacher", "teacher_recipe": "recipe@teacher_recipe", "start": "+method@method.start"}
"""Where their choices go."""

DEFAULT_MODEL = "nni/vgg16"
"""What configs/config.yaml names."""


def check_words(overrides: Sequence[str]) -> None:
    """Refuse an override whose name or choice does not exist, before Hydra is even imported. Raises ConfigError."""
    known = {line.split(":")[0] for line in (CONFIGS / "config.yaml").read_text().splitlines() if line[:1].isalpha()}
    valid = sorted({*known, *groups(), *ROLES, "pair", "hydra", "inference"} - {"defaults"})
    chosen: dict[str, str] = {}
    check_form(overrides, valid)
    for override in overrides:
        word, _, choice = override.lstrip("+").partition("=")
        top = word.split(".")[0].split("@")[0].split("/")[0]
        if top not in valid:
            homes = homes_of(top) if top.isidentifier() else []
            meant = f"; did you mean {', '.join(homes)}?" if homes else near(top, valid)
            raise ConfigError(f"unknown name {top!r} in {override!r}{meant}")
        if word in groups() and choice in ("null", ""):
            raise ConfigError(f"{word} must be chosen{near(choice, names(word))}")
        if word in (*groups(), *ROLES, "pair") and choice not in ("null", ""):
            chosen[word] = choice
            if "(" not in choice:  # a sweep function such as glob() is Hydra's to expand
                _check_choices(word, choice)
    if "pair" in chosen and "model" in chosen:
        raise ConfigError("pair= sets the teacher and the student, model= sets the student: give one of them")
    if "pair" in chosen and "teacher" in chosen:
        raise ConfigError("pair= sets the teacher and the student, teacher= sets the teacher: give one of them")


def _check_choices(group: str, choice: str) -> None:
    valid = names(ROLES.get(group, group))
    for name in choice.split(","):
        if name.strip() not in valid:
            raise ConfigError(f"unknown {group} {name.strip()!r}{near(name.strip(), valid)}{_lies_here(group, name)}")


def _lies_here(group: str, name: str) -> str:
    """The remedy where a choice lies in the usual folder of one's own, which the command does not name."""
    file = Path("configs") / ROLES.get(group, group) / f"{name.strip()}.yaml"
    return f" ({file} is searched with --config-dir configs)" if file.is_file() else ""


def as_hydra(overrides: Sequence[str]) -> list[str]:
    """The words as Hydra takes them: a pair is a model and a teacher, and each network trains by its own recipe unless
    `recipe=` (for both) or `teacher_recipe=` asks for another.

    Raises ConfigError.
    """
    words = _without_pair([quoted(word) for word in overrides])
    chosen = dict(word.partition("=")[::2] for word in words)
    recipe, teacher = chosen.get("recipe"), chosen.get("teacher")
    brought = _brought_recipe(chosen)
    added = [] if recipe else [f"recipe={brought or own_recipe(chosen.get('model', DEFAULT_MODEL))}"]
    if brought:
        added.append("~model")
    if teacher and "teacher_recipe" not in chosen:
        added.append(f"teacher_recipe={recipe or own_recipe(teacher)}")
    return [_with_role(word) for word in (*added, *words)]


def own_recipe(model: str) -> str:
    """The recipe that a network is published with, as its file in configs/model says. Raises ConfigError."""
    return str(read_choice("model", model).get("recipe") or "nni160")


def _brought_recipe(chosen: Mapping[str, str]) -> str:
    """The recipe of the network that the method brings; empty where it brings none. Raises ConfigError where another is
    named beside it, or where a method is to go on with one that is only known after a search."""
    start, method = chosen.get("start", ""), chosen.get("method", "")
    if start not in ("", "null") and read_choice("method", start).get("recipe"):
        raise ConfigError(
            f"start={start}: which network that is, is known when it was searched; nothing can be planned that goes "
            "on with it"
        )
    recipe = str(read_choice("method", method).get("recipe") or "")
    if recipe and chosen.get("model", "null") not in ("", "null"):
        raise ConfigError(
            f"model={chosen['model']}: method {method} brings the space that its network comes from (method.*), "
            "so no model is named beside it: leave model= and pair= out"
        )
    return recipe


def _without_pair(overrides: Sequence[str]) -> list[str]:
    words: list[str] = []
    for word in overrides:
        name, _, choice = word.partition("=")
        if name != "pair":
            words.append(word)
        elif choice not in ("null", ""):
            pair = read_choice("pair", choice)
            words += [f"model={pair['student']}", f"teacher={pair['teacher']}"]
    return words


def _with_role(word: str) -> str:
    """`teacher=x` as `model@teacher=x`; dotted words keep their names."""
    name, equals, choice = word.partition("=")
    return f"{AS_HYDRA[name]}{equals}{choice}" if name in ROLES else word


def read_choice(group: str, name: str) -> dict[str, Any]:
    """The content of a choice's file; empty where there is none, which Hydra then says better."""
    path = _path_of(group, name)
    return {} if path is None else copy.deepcopy(_content(path, path.stat().st_mtime_ns))


def values_of(group: str, choice: str) -> dict[str, Any] | None:
    """The values of a file upon those of the files that it begins from, as Hydra merges them; None where it names a
    package, a default of another form, or nothing."""
    from omegaconf import OmegaConf

    content = read_choice(group, choice)
    if not content or _names_package(group, choice):
        return None
    own = {name: value for name, value in content.items() if name != "defaults"}
    parts: list[dict[str, Any]] = []
    for each in content.get("defaults", ["_self_"]):
        begins = isinstance(each, str) and each.endswith("@_here_")
        part = own if each == "_self_" else values_of(group, each.removesuffix("@_here_")) if begins else None
        if part is None:
            return None
        parts.append(part)
    if own not in parts:  # then Hydra has an order of its own
        return None
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(*parts)))


def _names_package(group: str, name: str) -> bool:
    """Whether a choice's file says, in Hydra's words in its header, which block its values belong to."""
    path = _path_of(group, name)
    return path is not None and re.search(r"^\s*#\s*@package", path.read_text(), re.MULTILINE) is not None


def _path_of(group: str, name: str) -> Path | None:
    return next((folder / group / f"{name}.yaml" for folder in folders() if _is_choice(folder, group, name)), None)


@functools.lru_cache(maxsize=500)
def _content(path: Path, changed_ns: int) -> dict[str, Any]:
    """What a file held when it was last changed: a study asks for the same ones again and again."""
    from omegaconf import OmegaConf  # here: `--help` needs none

    content = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no names and values")
    return {str(key): value for key, value in content.items()}


def _is_choice(folder: Path, group: str, name: str) -> bool:
    inside = len(name) < 200 and ".." not in Path(name).parts and not name.startswith("/") and "\0" not in name
    return inside and (folder / group / f"{name}.yaml").is_file()
