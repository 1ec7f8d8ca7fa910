"""A study: a file of experiments, `{overrides, sweep}` blocks, expanded to lists of overrides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.config import CONFIGS, ConfigError, near

FOLDER = CONFIGS / "experiment"


def expand(name: str, extra: Sequence[str]) -> list[list[str]]:
    """The override lists of study `name`, each with `extra` (the command's own, which win) at its end.

    Raises ConfigError where the study is unknown, malformed or empty.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
        raise ConfigError(f"unknown experiment {name!r}{near(name, known)}")
    jobs = [[*job, *extra] for block in _blocks(path) for job in _jobs(block)]
    if not jobs:
        raise ConfigError(f"{path} holds no experiment")
    own = {word.partition("=")[0] for word in extra}
    # an override of the command replaces the file's of the same name; equal jobs are one
    kept = [[w for w in job[: len(job) - len(extra)] if w.partition("=")[0] not in own] + list(extra) for job in jobs]
    return list(map(list, dict.fromkeys(map(tuple, kept))))


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
