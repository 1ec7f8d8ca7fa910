"""The words of `study`: which study, and how it is to be worked; the rest are overrides of every experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationError

from benchmark.plan.folders import ConfigError, names, near
from benchmark.plan.task import Config

FLAGS = ("dry_run", "measure_again")
VALUES = ("experiment", "only", "max_wh", "max_hours")


class Request(Config):
    """What is asked of a study.

    `only` holds patterns that overrides must fit. No stage begins once `max_wh` are spent or `max_hours` have passed,
    nor one that is expected to go beyond.
    """

    experiment: str
    words: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    dry_run: bool = False
    measure_again: bool = False
    max_wh: float | None = Field(default=None, gt=0)
    max_hours: float | None = Field(default=None, gt=0)


def request_of(words: Sequence[str]) -> Request:
    """The request that the words of a command make: `dry_run=true` and `--dry-run`, `max_wh=5`, `--max-wh=5` and
    `--max-wh 5` are the same. Raises ConfigError."""
    given: dict[str, Any] = {"words": [], "only": []}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_") if word.startswith("--") else name
        if name not in (*FLAGS, *VALUES):
            if word.startswith("-"):
                flags = [f"--{each.replace('_', '-')}" for each in (*FLAGS, *VALUES)]
                raise ConfigError(f"unknown flag {word.partition('=')[0]}{near(word.partition('=')[0], flags)}")
            given["words"].append(word)
            continue
        if not equals and word.startswith("--"):
            value = "true" if name in FLAGS else next(rest, "")
        if not value:
            raise ConfigError(f"{word} needs a value: {name}=...")
        if name == "only":
            given["only"].append(value)
        elif name in given:
            raise ConfigError(f"{name} is given twice: {given[name]} and {value}")
        else:
            given[name] = value
    if "experiment" not in given:
        said = " ".join(given["words"])
        raise ConfigError(f"a study needs exactly one experiment=NAME{near(said, names('experiment'))}")
    try:
        return Request.model_validate(given)
    except ValidationError as error:
        finding = error.errors()[0]
        raise ConfigError(f"{finding['loc'][0]}: {finding['msg']} (got {finding['input']!r})") from error
