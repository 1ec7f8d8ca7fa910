"""The command that runs an experiment of a results folder again, from what its run file remembers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark.errors import UserError
from benchmark.plan.run_file import RunFile
from benchmark.plan.words import own_recipe, read_choice, values_of
from benchmark.report.rows import AFTER

OF_THE_TASK = ("base_precision", "compile", "teacher_seed")
"""Settings that belong to no group."""


NETWORKS = ("model", "teacher")
"""The blocks of networks."""

MISSING: Mapping[str, Any] = {"?": None}
"""Of a choice whose file is not found."""


def commands_of(runs: Sequence[RunFile]) -> str:
    """The command for the seeds of one plan: one where they follow each other, else one a seed, a line each. Empty
    where none can be made: names in a stranger's run file may be anything."""
    ordered = sorted(runs, key=lambda run: run.seed)
    try:
        if ordered and [run.seed for run in ordered] == list(range(ordered[0].seed, ordered[0].seed + len(ordered))):
            lines = [command_of(ordered[0], len(ordered))]
        else:
            lines = [command_of(run) for run in ordered]
    except (OSError, UserError):
        return ""
    # a sign that a terminal takes for a key leaves the quotes when it is pasted
    return "\n".join(lines) if all(line.isprintable() for line in lines) else ""


def command_of(run: RunFile, seeds: int = 1) -> str:
    """The command that plans the same stages as a run, quoted for a shell: its choices, and each setting that differs
    from what the files of the choices say. A test plans such commands and compares every key.

    With `seeds` above 1 it runs that many, from the run's own on. It names no folders and no device, for those are the
    reader's. Choices outside the tree need their --config-dir: of one whose file is not found, every setting is named.
    """
    words = [*_choices(run), *([f"seeds={seeds}"] if seeds > 1 else []), *_of_the_task(run), *_settings(run)]
    return shlex.join(["python", "-m", "benchmark", "run", *words])


def as_published(run: RunFile) -> bool:
    """Whether a run has every setting of its method and recipe as their files have it."""
    own = [name for name, _ in _differing(run) if name.startswith(("method.", "recipe.", "teacher_recipe."))]
    return not own and all(values != MISSING for block, values in _files(run).items() if block not in NETWORKS)


def _choices(run: RunFile) -> Iterator[str]:
    words = run.words
    method, _, start = words.method.partition(AFTER)
    brought = _brought(method)
    yield f"method={method}"
    if start:
        yield f"start={start}"
    if not brought:
        yield f"model={words.model}"
    if words.recipe != (brought or own_recipe(words.model)):
        yield f"recipe={words.recipe}"
    if words.teacher:
        yield f"teacher={words.teacher}"
        recipe = run.settings.get("teacher_recipe.name", "")
        # one that is named for the student counts for the teacher, too
        if recipe and (recipe != own_recipe(words.teacher) or recipe != words.recipe):
            yield f"teacher_recipe={recipe}"
    yield f"data={_own_name(words.data)}"
    for name in ("scale", "profile", "train_precision", "engine"):
        yield f"{name}={getattr(words, name)}"
    if words.deploy_precision != "fp32" and not method.startswith("quantization/"):  # which deploys in its own
        yield f"deploy_precision={words.deploy_precision}"
    yield f"seed={run.seed}"


def _brought(method: str) -> str:
    """The recipe of the network that a search brings; empty for other methods."""
    return str((values_of("method", method) or {}).get("recipe") or "")


def _own_name(data: str) -> str:
    """A data set's name as the command takes it: tables show one's own with the beginning of its digest."""
    return data.partition("@")[0]


def _of_the_task(run: RunFile) -> Iterator[str]:
    usual = read_choice("", "config")
    for name in OF_THE_TASK:
        value = run.settings.get(name, "")
        if value and value != str(usual.get(name)):
            yield f"{name}={_said(value)}"


def _settings(run: RunFile) -> Iterator[str]:
    yield from (f"{name}={_said(value)}" for name, value in _differing(run))


def _differing(run: RunFile) -> Iterator[tuple[str, str]]:
    """What differs from the files of the choices, by the settings' own names."""
    for group, values in _files(run).items():
        usual = dict(_flat(values, f"{group}."))
        if values == MISSING:
            usual = {name: "" for name in run.settings if name.startswith(f"{group}.") and not name.endswith(".name")}
        for name, value in run.settings.items():
            if name.endswith(".code"):
                continue  # what the files of a network say
            added = group == "scale" and name.startswith("scale.") and name not in usual and value != "None"
            if added:  # a scale's file names its limits alone
                yield f"+{name}", value
            elif name in usual and not _same(value, usual[name]) and not _follows(run, name, value):
                yield name, value


def _follows(run: RunFile, name: str, value: str) -> bool:
    """Whether a recipe's setting is what it is by the limit of the scale, or by the constants of the data set."""
    if name.endswith("recipe.epochs"):
        return value == str(run.words.max_epochs)
    return name.endswith(("recipe.mean", "recipe.std")) and value == run.settings.get(f"data.{name.rpartition('.')[2]}")


def _files(run: RunFile) -> dict[str, Mapping[str, Any]]:
    """The values that the choices of a run begin from, by the block that a command sets them in."""
    words = run.words
    method, _, start = words.method.partition(AFTER)
    named = {
        "method": ("method", method), "method.start": ("method", start), "recipe": ("recipe", words.recipe),
        "teacher_recipe": ("recipe", run.settings.get("teacher_recipe.name", "")),
        "data": ("data", _own_name(words.data)), "model": ("model", "" if _brought(method) else words.model),
        "teacher": ("model", words.teacher),
    }  # fmt: skip  # a block a line would hide the shape
    return {
        **{block: (values_of(*choice) or MISSING) if choice[1] else {} for block, choice in named.items()},
        "calibration": read_choice("", "config").get("calibration") or {},
        **{block: read_choice("scale", words.scale).get(block) or {} for block in ("scale", "inference")},
    }


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)  # 1 in a file is 1.0 in a setting
    except ValueError:
        return one == other


def _said(value: str) -> str:
    """A value as the command takes it."""
    return {"None": "null", "True": "true", "False": "false"}.get(value, value)
