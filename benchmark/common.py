"""What the commands share: experiments on this machine's device, the folders that words name, the tables shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from benchmark.energy import Device
    from benchmark.plan.asked import Asked
    from benchmark.plan.config import Experiment
    from benchmark.plan.deployment import Here
    from benchmark.plan.life import Life
    from benchmark.records.store import Store
    from benchmark.report.tables import Tables


def counted(count: int, what: str) -> str:
    """A number with what it counts: 1 fault, 2 faults."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def say(line: str) -> None:
    """Tell the user something, beside the output."""
    print(line, file=sys.stderr, flush=True)


def parse_all(configs: Sequence[DictConfig | dict[str, Any]], quiet: bool = False) -> tuple[list[Experiment], Device]:
    """Typed experiments for the device that the first of them asks for; notes on what was adapted are said once."""
    from benchmark.plan.config import parse

    device = device_of(configs[0])
    here = here_of(device)
    parsed = [parse(config, here) for config in configs]
    for note in dict.fromkeys(note for _, notes in parsed for note in notes):
        if not quiet:
            say(f"note: {note}")
    return [experiment for experiment, _ in parsed], device


def device_of(config: DictConfig | dict[str, Any]) -> Device:
    """The device that a composed config asks for: this machine's, or that of the workers of its executor."""
    from benchmark.energy import find_device
    from benchmark.plan.where import Hardware

    if config["executor"] != "ray":
        return find_device(str(config["hardware"]["device"]))
    from benchmark.run.cluster import connect

    return connect(Hardware.model_validate({**config["hardware"], "executor": "ray"}), say).device


def here_of(device: Device) -> Here:
    """What planning knows of this machine."""
    from benchmark.deploy.engines import kinds
    from benchmark.plan.deployment import Here

    return Here(device_kind=device.kind, machine=device.machine, engines=kinds())


def store_of(experiment: Experiment) -> Store:
    """The folders of an experiment."""
    from benchmark.records.store import Store

    return Store(experiment.paths.results, experiment.paths.artifacts)


def lives_of(experiment: Experiment, device: Device, store: Store) -> list[Life]:
    """The lives of an experiment on a device, one a seed."""
    from benchmark.plan.life import lives, place_of

    elsewhere = store.runs() if experiment.hardware.infer else []
    return lives(experiment, place_of(experiment, here_of(device), elsewhere))


def folders_of(words: Sequence[str]) -> tuple[Store, Asked]:
    """The store that the words name, and what its report is asked for. Plans nothing, and imports no method."""
    from benchmark.plan.config import compose, report_of
    from benchmark.records.store import Store

    paths, asked = report_of(compose(words))
    if not os.path.isdir(paths.results) or not os.access(paths.results, os.R_OK | os.X_OK):
        why = "may not be read" if os.path.isdir(paths.results) else "does not exist"
        raise UserError(f"the results folder {paths.results} {why}: name another with paths.results=DIR (or run first)")
    return Store(paths.results, paths.artifacts), asked


def elsewhere(asked: Sequence[str]) -> str:
    """A hint at rows that lie where throw-away runs write; none where a folder was named."""
    if any(word.startswith(("paths.", "scale")) for word in asked):
        return ""
    found = [
        f"paths.results={folder} ({folder.name.removeprefix('.')} rows: a trial, no result)"
        for folder in (Path("results/.smoke"), Path("results/.demo"))
        if (folder / "records").is_dir()
    ]
    return f"say {' or '.join(found)}" if found else ""


def _width() -> int | None:
    """How wide output may be: None asks the terminal, and COLUMNS decides wherever it is set. A pipe or a file has no
    width of its own: rows and notes stay whole."""
    from benchmark.report.printed import WIDEST

    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and int(said) else None if sys.stdout.isatty() else WIDEST


def show_tables(store: Store, asked: Asked) -> Tables:
    """Write the tables and the page of a results folder, print the summary, and return the rows. Raises UserError where
    nothing was run."""
    from rich.console import Console

    from benchmark.report.printed import tell
    from benchmark.report.tables import write
    from benchmark.report.total import lines, unfinished

    tables = write(store, asked)
    for line in (*tables.unwritten, *(f"left out: {line}" for line in tables.left_out)):
        say(line)
    if not tables.summary:
        raise UserError(f"there are no runs under {store.results}: python -m benchmark run ... first")
    console = Console(width=_width())
    tables.show(console)
    for line in (*lines(tables.stages), *unfinished(store, tables.book.booked())):
        tell(line, console)
    if tables.paths:
        say("written: " + ", ".join(map(str, tables.paths)))
    return tables
