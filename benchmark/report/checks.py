"""Judges every record: is the number plausible, its provenance complete, its table unmixed?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from benchmark.energy.reading import GRADES
from benchmark.records.store import Record, Store, StoreError, fault_of_seal, read_record
from benchmark.report import rows

SHORTEST_S = 0.2
"""Two ticks of the energy counter: no meter of ours can see less."""
HIGHEST_W = 1500.0
"""More than any single board draws."""


class Finding(NamedTuple):
    """A fault (the check fails) or a warning, where, and what."""

    fault: bool
    where: str
    what: str


def check(store: Store) -> list[Finding]:
    """Every finding about the records of a results folder and the tables they make."""
    findings: list[Finding] = []
    for path in store.record_paths():
        where = path.relative_to(store.results).as_posix()
        try:
            record, seal = read_record(path), fault_of_seal(path)
        except StoreError as error:
            findings.append(Finding(True, where, str(error)))
            continue
        if path.name.split(".")[0] != record.key or path.parent.name != record.machine:
            findings.append(Finding(True, where, f"holds the record of {record.key} on {record.machine}"))
        findings += [Finding(True, where, seal)] if seal else []
        findings += [Finding(fault, where, what) for fault, what in _record(record)]
    if not any(finding.fault for finding in findings):
        book = rows.Book.read(store)
        findings += [Finding(True, "runs", line) for line in book.stale]
        findings += _table(rows.stages(book))
    return findings


def _record(record: Record) -> Iterator[tuple[bool, str]]:
    yield from _energy(record)
    for name in ("source", "device_name", "machine", "created", "commit"):
        if not getattr(record, name):
            yield True, f"provenance is incomplete: no {name}"
    if record.commit == "unknown":
        yield True, "provenance is incomplete: the commit is unknown"
    if record.commit.endswith("+dirty"):
        yield False, "was made by code that no commit holds"
    for name in ("python", "torch"):
        if name not in record.provenance.get("versions", {}):
            yield True, f"provenance is incomplete: no version of {name}"
    if record.grade not in GRADES:
        yield True, f"unknown grade {record.grade!r}"
    accuracy = record.values.get("acc_pct")
    if accuracy is not None and not 0 <= accuracy <= 100:
        yield True, f"accuracy {accuracy} is no percentage"


def _energy(record: Record) -> Iterator[tuple[bool, str]]:
    if math.isnan(record.joules):
        if not record.reason:
            yield True, "energy is NaN without a reason"
        else:
            yield False, f"energy is NaN: {record.reason}"
        return
    if record.joules <= 0 or record.seconds <= 0:
        yield True, f"{record.joules} J in {record.seconds} s: nothing costs nothing"
        return
    watts = record.joules / record.seconds
    limit = record.provenance.get("power_limit_w") or HIGHEST_W
    if watts > 1.05 * limit:
        yield True, f"mean power {watts:.0f} W is above the limit of {limit:.0f} W"
    if not record.source.startswith("estimate") and record.seconds < SHORTEST_S:
        # building an engine takes as long as it takes, and is no part of G
        fault = record.fn != "benchmark.deploy.build:build_engine"
        yield fault, f"the window of {record.seconds:.2f} s is too short for a meter"
    if record.repeated_joules < 0:
        yield True, f"repeated energy is negative: {record.repeated_joules} J"


def _table(stages: pd.DataFrame) -> Iterator[Finding]:
    """Findings that only show when rows stand side by side."""
    tec = stages[stages["kind"] == "TEC"]
    for name, own in tec.groupby("experiment"):
        boards = sorted(set(own["device_uuid"]) - {""})
        if len(boards) > 1:
            yield Finding(True, str(name), f"its TEC comes from different boards: {', '.join(boards)}")
    estimated = stages["energy_source"].str.startswith("estimate")
    if estimated.any() and not estimated.all():
        for row in stages[estimated].drop_duplicates("key").to_dict("records"):
            what = f"{row['stage']} {row['key']} is estimated, in a table of measured results"
            yield Finding(True, str(row["experiment"]), what)
    for column in ("torch_version", "cuda_version", "driver", "profile", "scale"):
        found = sorted(set(stages[column].dropna().astype(str)) - {""})
        if len(found) > 1:
            yield Finding(False, "the table", f"mixes {column}: {', '.join(found)}")
    for name, own in stages.groupby("stage"):
        versions = sorted(set(own["stage_version"]))
        if len(versions) > 1:
            yield Finding(False, "the table", f"mixes versions of {name!s}: {', '.join(map(str, versions))}")
