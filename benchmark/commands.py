"""The commands behind the door, a function each: words in, exit status out. Each imports what it needs, when it does.

They raise UserError for what a user can mend.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from benchmark.energy import Device
    from benchmark.plan.asked import Asked
    from benchmark.plan.config import Experiment
    from benchmark.plan.deployment import Here
    from benchmark.plan.life import Life
    from benchmark.records.store import Store


def run(words: list[str]) -> int:
    """One experiment, or with -m a sweep of them, to its rows."""
    again, words = _take(AGAIN, words)
    flags = {word for word in words if word.startswith("-")}
    others = flags - {"-m", "--multirun"}
    if others and others != flags:
        raise UserError(f"-m stands alone: without it, {' '.join(sorted(others))} looks at one experiment")
    if others:
        unknown = [word for word in others if word.partition("=")[0] not in HYDRA_FLAGS]
        if unknown:
            from benchmark.plan.config import check_words

            check_words(words)  # which says what was probably meant
        return _hydra(words)
    from benchmark.plan.config import compose

    if not flags:
        return _work([[compose(words)]], again)
    from benchmark.plan.study import sweep

    return _work([[compose(job) for job in sweep([word for word in words if word not in flags])]], again)


def study(words: list[str]) -> int:
    """Every experiment of a study's file; the blocks of the file are measured one after the other."""
    from benchmark.plan.config import ConfigError, check_words, compose
    from benchmark.plan.study import expand

    again, words = _take(AGAIN, words)
    chosen = [word for word in words if word.startswith("experiment=")]
    if len(chosen) != 1:
        raise ConfigError("a study needs exactly one experiment=NAME (a file of configs/experiment)")
    rest = [word for word in words if word not in chosen]
    check_words(rest)
    blocks = expand(chosen[0].partition("=")[2], rest)
    _say(f"study {chosen[0].partition('=')[2]}: {sum(map(len, blocks))} experiment(s)")
    return _work([[compose(job) for job in block] for block in blocks], again)


def plan(words: list[str]) -> int:
    """The stages of one experiment, and what is left of it."""
    from benchmark.plan.config import ConfigError, compose
    from benchmark.plan.life import undeployable
    from benchmark.run.forecast import table
    from benchmark.run.schedule import refusals

    parsed, device = _parse([compose([word for word in words if word != "--check"])])
    store = _store(parsed[0])
    lives = _lives(parsed[0], device, store)
    why = undeployable(lives[0], _here(device))
    if why:
        raise ConfigError(why)
    if "--check" in words:
        for why in refusals(lives[:1], _here(device), device.torch_name).values():
            raise ConfigError(why)
    for line in table(store, lives):
        print(line)
    return 0


def report(words: list[str]) -> int:
    """Both tables, from runs and records alone."""
    return _tables(*_folders(words))


def check(words: list[str]) -> int:
    """A verdict on every record; 1 where there is a fault."""
    from benchmark.report.checks import check as judge

    store, _ = _folders(words)
    findings = judge(store)
    for finding in findings:
        print(f"{'FAULT' if finding.fault else 'warning'}: {finding.where}: {finding.what}")
    faults = sum(finding.fault for finding in findings)
    count = len(store.record_paths())
    if not count:
        raise UserError(f"there is no record under {store.results}, so nothing to judge: is it the right folder?")
    print(f"{count} records under {store.results}: {faults} faults, {len(findings) - faults} warnings")
    return 1 if faults else 0


def free(words: list[str]) -> int:
    """Delete what no unfinished life needs, or with --dry-run say what that is; --without=DIR: whatever DIR needs."""
    from benchmark.records.files import sweep
    from benchmark.run.free import removable

    dry, words = _take("--dry-run", words)
    without = [word for word in words if word.startswith(WITHOUT)]
    store, _ = _folders([word for word in words if word not in without])
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
    """What meter and device this machine has."""
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

        (experiment,), _ = _parse([config], quiet=True)
        print(*lines(probe_board(found, _store(experiment), _say)), sep="\n")
    return 0


def choices() -> int:
    """What `run --help` prints: every name and choice, without Hydra."""
    from benchmark.plan.folders import CONFIGS, groups, names
    from benchmark.plan.words import ROLES

    print("usage: python -m benchmark run [name=value ...]; plan, study, report, check and device take the same names")
    print("  -m                sweep over comma-separated values\n  --cfg job         show the composed configuration")
    print("  --config-dir DIR  search DIR like configs/, too\n  --measure-again   measure inference once more\n")
    print("choices")
    for group in groups():
        print(f"  {group}={' | '.join(names(group))}")
    for role, group in ROLES.items():
        print(f"  {role}=any {group}; null: none")
    print("\ndefaults (configs/config.yaml)")
    print("".join(f"  {line}\n" for line in (CONFIGS / "config.yaml").read_text().splitlines()), end="")
    return 0


# --- what they share -------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _hydra(words: list[str]) -> int:
    """Hand the flags to Hydra: --cfg job and the rest of its own."""
    import hydra

    from benchmark.plan.config import CONFIGS, check_words
    from benchmark.plan.folders import search_path
    from benchmark.plan.words import as_hydra

    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    check_words(overrides)
    words = [*(word for word in words if word not in overrides), *as_hydra(overrides)]
    configs: list[DictConfig] = []
    sys.argv = ["python -m benchmark run", *words, *search_path()]
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(configs.append)()
    except ValueError as error:  # its own words about its own flags
        raise UserError(str(error)) from error
    return _work([configs]) if configs else 0


AGAIN, WITHOUT = "--measure-again", "--without="
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--package", "-p", "--resolve", "--hydra-help", "--version")
"""Flags of Hydra that look at one experiment, and run none."""


def _take(flag: str, words: list[str]) -> tuple[bool, list[str]]:
    """Whether a flag was given, and the words without it."""
    return flag in words, [word for word in words if word != flag]


def _work(blocks: Sequence[Sequence[DictConfig]], again: bool = False) -> int:
    """Run blocks of experiments to their rows, then report on them. One that is refused or fails stops no other."""
    from benchmark.plan.config import one_place
    from benchmark.run.schedule import refusals
    from benchmark.run.schedule import work as work_all
    from benchmark.run.state import recorded
    from benchmark.run.workbench import Site
    from benchmark.run.worker import StageError, Worker

    experiments, device = _parse([config for block in blocks for config in block])
    first = one_place(experiments)
    store = _store(first)
    store.check_writable()
    lives = [_lives(experiment, device, store) for experiment in experiments]
    failures: list[str] = []
    if again or not all(recorded(life, store) for own in lives for life in own):
        # the method's check imports torch: what is recorded already must not wait for it
        refused = refusals([own[0] for own in lives], _here(device), device.torch_name)
        failures += refused.values()
        lives = [[] if number in refused else own for number, own in enumerate(lives)]
        _ensure_data(first, lives)
    meter = device.source or "NO METER: every energy will be unknown"
    _say(f"device: {device.name} ({device.machine}), energy from {meter}")
    flat = iter(lives)
    planned = [[life for _ in block for life in next(flat)] for block in blocks]
    try:
        site = Site(device, store, first.paths.data, first.hardware.cpu_tdp_w)
        work_all(Worker(site, _say), planned, measure_again=again)
    except StageError as error:  # the others are done: their rows are worth seeing
        failures.append(str(error))
    status = _tables(store, first.asked) if any(planned) else 1
    if failures:
        raise UserError("; ".join(dict.fromkeys(failures)))
    return status


def _ensure_data(first: Experiment, lives: Sequence[Sequence[Life]]) -> None:
    """Download what is missing. Raises DataError."""
    from benchmark.vision.download import ensure

    for name in sorted({name for own in lives for name in (own[0].data_sets() if own else ())}):
        ensure(name, first.paths.data, _say)


def _parse(configs: Sequence[DictConfig], quiet: bool = False) -> tuple[list[Experiment], Device]:
    """Typed experiments for the device that the first of them asks for; notes on what was adapted are said once."""
    from benchmark.energy import find_device
    from benchmark.plan.config import parse

    device = find_device(str(configs[0].hardware.device))
    here = _here(device)
    parsed = [parse(config, here) for config in configs]
    for note in dict.fromkeys(note for _, notes in parsed for note in notes):
        if not quiet:
            _say(f"note: {note}")
    return [experiment for experiment, _ in parsed], device


def _here(device: Device) -> Here:
    from benchmark.deploy.engines import kinds
    from benchmark.plan.deployment import Here

    return Here(device_kind=device.kind, machine=device.machine, engines=kinds())


def _store(experiment: Experiment) -> Store:
    from benchmark.records.store import Store

    return Store(experiment.paths.results, experiment.paths.artifacts)


def _lives(experiment: Experiment, device: Device, store: Store) -> list[Life]:
    from benchmark.plan.life import lives, place_of

    elsewhere = store.runs() if experiment.hardware.infer else []
    return lives(experiment, place_of(experiment, _here(device), elsewhere))


def _folders(words: Sequence[str]) -> tuple[Store, Asked]:
    """The store that the words name, and what its report is asked for. Plans nothing, and imports no method."""
    from benchmark.plan.config import compose, report_of
    from benchmark.records.store import Store

    paths, asked = report_of(compose(words))
    if not os.path.isdir(paths.results) or not os.access(paths.results, os.R_OK | os.X_OK):
        why = "may not be read" if os.path.isdir(paths.results) else "does not exist"
        raise UserError(f"the results folder {paths.results} {why}: name another with paths.results=DIR (or run first)")
    return Store(paths.results, paths.artifacts), asked


def _tables(store: Store, asked: Asked) -> int:
    """Write both tables of a results folder and print the summary."""
    from rich.console import Console

    from benchmark.report.tables import show, write

    tables = write(store, asked)
    for line in (*tables.unwritten, *(f"left out: {line}" for line in tables.left_out)):
        _say(line)
    if not tables.summary:
        raise UserError(f"there are no runs under {store.results}: python -m benchmark run ... first")
    # piped output has no width of its own: rows stay whole
    show(tables.summary, Console(width=None if sys.stdout.isatty() else 160))
    if tables.paths:
        _say("written: " + ", ".join(map(str, tables.paths)))
    return 0
