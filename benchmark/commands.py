"""The commands behind the door, a function each: words in, exit status out. Each imports what it needs, when it does.

They raise UserError for what a user can mend.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.common import counted, folders_of, parse_all, say, store_of
from benchmark.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(words: list[str]) -> int:
    """One experiment, or with -m a sweep of them, to its rows."""
    again, words = _take(AGAIN, words)
    flags = {word for word in words if word.startswith("-")}
    others = flags - {"-m", "--multirun"}
    if any(word.partition("=")[0] in ("--dry-run", "--dry") for word in others):
        raise UserError("run has no --dry-run: python -m benchmark plan with the same words says what they would take")
    if others and others != flags:
        raise UserError(f"-m stands alone: without it, {' '.join(sorted(others))} looks at one experiment")
    if others:
        unknown = [word for word in others if word.partition("=")[0] not in HYDRA_FLAGS]
        if unknown:
            from benchmark.plan.config import check_words

            check_words(words)  # which says what was probably meant
        return _hydra(words)
    from benchmark.plan.config import compose
    from benchmark.studying import work_blocks

    if not flags:
        return work_blocks([[compose(words)]], again)
    from benchmark.plan.study import sweep

    return work_blocks([[compose(job) for job in sweep([word for word in words if word not in flags])]], again)


def study(words: list[str]) -> int:
    """Every experiment of a study's file, planned as a whole; the blocks of the file are measured one after the other.

    With --dry-run only the plan, and what it will take.
    """
    from benchmark.studying import study as work_study

    return work_study(words)


def plan(words: list[str]) -> int:
    """The stages of one experiment, and what is left of it; with -m or experiment=NAME, what all of them will take."""
    from benchmark.studying import foresee, plan_one

    many, words = _take("-m", [word.replace("--multirun", "-m") for word in words])
    if any(word.startswith("experiment=") for word in words):
        return study([*words, "--dry-run"])
    check, words = _take("--check", words)
    if not many:
        return plan_one(words, check)
    from benchmark.plan.study import sweep

    return foresee(sweep(words), check)


def export(words: list[str]) -> int:
    """Write all results into one file that another box can take."""
    from benchmark.moving import export as write

    return write(words)


def data(words: list[str]) -> int:
    """Make a data set of one's own from images: from=FOLDER name=NAME."""
    from benchmark.gathering import data as make

    return make(words)


def advise(words: list[str]) -> int:
    """Name the greenest method for a number of inferences."""
    from benchmark.advising import advise as answer

    return answer(words)


def take_in(words: list[str]) -> int:
    """`import`: take what is new in such a file."""
    from benchmark.moving import take_in as take

    return take(words)


def report(words: list[str]) -> int:
    """Tables, the page and figures, from runs and records alone."""
    from benchmark.reporting import report as make

    return make(words)


def check(words: list[str]) -> int:
    """A verdict on every record; 1 where there is a fault."""
    from benchmark.report.checks import check as judge

    store, _ = folders_of(words)
    findings = judge(store)
    alike: dict[str, list[str]] = {}
    for finding in findings:
        if finding.fault:
            print(f"FAULT: {finding.where}: {finding.what}")
        else:
            alike.setdefault(finding.what, []).append(finding.where)
    for what, places in alike.items():  # one line for what many records share
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        print(f"warning: {places[0]}{more}: {what}")
    faults = sum(finding.fault for finding in findings)
    count = len(store.record_paths())
    if not count:
        from benchmark.common import elsewhere

        begun = any((store.results / "runs").glob("*/*.json"))
        again = "a run was begun here, and nothing of it is recorded yet: the same command goes on"
        hint = again if begun else elsewhere(words) or "is it the right folder?"
        raise UserError(f"there is no record under {store.results}, so nothing to judge: {hint}")
    judged = f"{counted(faults, 'fault')}, {counted(len(findings) - faults, 'warning')}"
    print(f"{counted(count, 'record')} under {store.results}: {judged}")
    return 1 if faults else 0


def free(words: list[str]) -> int:
    """Delete what no unfinished life needs, or with --dry-run say what that is; --without=DIR: whatever DIR needs."""
    from benchmark.records.files import sweep
    from benchmark.run.free import removable

    dry, words = _take("--dry-run", words)
    without = [word for word in words if word.startswith(WITHOUT)]
    store, _ = folders_of([word for word in words if word not in without])
    paths = removable(store, [word.removeprefix(WITHOUT) for word in without])
    if not dry:
        sweep(store.artifacts)
    size = sum(path.stat().st_size for path in paths)
    for path in paths:
        print(path)
        if not dry:
            path.unlink(missing_ok=True)
    print(f"{'would free' if dry else 'freed'} {size / 1e6:.1f} MB in {len(paths)} files under {store.artifacts}")
    return 0


def device(words: list[str]) -> int:
    """What meter and device this machine has; with --compare, what other tools would report of the same minute."""
    side_by_side, words = _take("--compare", words)
    if side_by_side:
        from benchmark.comparing import compare

        return compare(words)
    from benchmark.energy import find_device
    from benchmark.plan.config import compose

    config = compose([word for word in words if word != "--probe"])
    found = find_device(str(config.hardware.device))
    print(f"device   {found.name} ({found.torch_name}), machine {found.machine}")
    print(f"meter    {found.source}, best grade {found.grade_best}")
    for line in found.why_not_better:
        print(f"         not better: {line}")
    if "--probe" in words:
        from benchmark.run.boards import lines, probe_board

        (experiment,), _ = parse_all([config], quiet=True)
        print(*lines(probe_board(found, store_of(experiment), say)), sep="\n")
    return 0


def choices(words: list[str]) -> int:
    """What `run --help` prints: every name and choice, without Hydra; with method=NAME, that method's settings."""
    named = [word.removeprefix("method=") for word in words if word.startswith("method=")]
    if named:
        return _settings(named[-1])
    from benchmark.plan.folders import CONFIGS, groups, names
    from benchmark.plan.words import ROLES

    print("usage: python -m benchmark run|plan|study [name=value ...]: they take the same names\n")
    print("  -m                sweep over comma-separated values\n  --cfg job         show the composed configuration")
    print("  --config-dir DIR  search DIR like configs/, too\n  --measure-again   measure inference once more\n")
    print("choices")
    for group in groups():
        print(f"  {group}={' | '.join(names(group))}")
    for role, group in ROLES.items():
        print(f"  {role}=any {group}; null: none")
    print(f"  experiment={' | '.join(names('experiment'))}  (of study and plan alone: many experiments in one file)")
    print("\ndefaults (configs/config.yaml)")
    print("".join(f"  {line}\n" for line in (CONFIGS / "config.yaml").read_text().splitlines()), end="")
    return 0


def _settings(method: str) -> int:
    """What can be set of a method, with its usual values."""
    from benchmark.plan.folders import ConfigError, names, near
    from benchmark.plan.words import values_of

    values = values_of("method", method)
    if values is None:
        raise ConfigError(f"unknown method {method!r}{near(method, names('method'))}")
    print(f"settings of method={method} and their usual values (docs/ explains them by family)\n")
    for name, value in _flat(values):
        print(f"  method.{name}={value}")
    return 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a method by dotted name, as the command takes them; without what only names its code."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in ("_target_", "name", "recipe"):
            yield prefix + name, WORDS.get(str(value), str(value))


WORDS = {"None": "null", "True": "true", "False": "false"}
"""Values as the command says them."""


# --- what they share -------------------------------------------------------------------------------------------------


def _hydra(words: list[str]) -> int:
    """Hand the flags to Hydra: --cfg job and the rest of its own."""
    import hydra

    from benchmark.plan.config import CONFIGS, check_words
    from benchmark.plan.folders import search_path
    from benchmark.plan.words import as_hydra
    from benchmark.studying import work_blocks

    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    check_words(overrides)
    words = [*(word for word in words if word not in overrides), *as_hydra(overrides)]
    configs: list[DictConfig] = []
    sys.argv = ["python -m benchmark run", *words, *search_path()]
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(configs.append)()
    except ValueError as error:  # its own words about its own flags
        raise UserError(str(error)) from error
    return work_blocks([configs]) if configs else 0


AGAIN, WITHOUT = "--measure-again", "--without="
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--package", "-p", "--resolve", "--hydra-help", "--version")
"""Flags of Hydra that look at one experiment, and run none."""


def _take(flag: str, words: list[str]) -> tuple[bool, list[str]]:
    """Whether a flag was given, and the words without it."""
    return flag in words, [word for word in words if word != flag]
