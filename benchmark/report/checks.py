"""Judges every record: is the number plausible, its provenance complete, its table unmixed?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from benchmark.energy.judge.reading import is_estimate
from benchmark.errors import one_line
from benchmark.plan.run_file import RunFile
from benchmark.records.book import Book
from benchmark.records.files import StoreError
from benchmark.records.record import Record, fault_of_seal, faults, faults_of_place, read_record
from benchmark.records.store import Store, read_device
from benchmark.report.rows import StageRow, frame, stage_rows
from benchmark.report.summary import DISTURBED_PCT, QUIET, others_pct

SHORTEST_S = 0.2
"""Two ticks of the energy counter: no meter of ours can see less."""
HIGHEST_W = 1500.0
"""More than any single board draws."""
NEGLIGIBLE = 0.01
"""A stage that cannot have cost more than this share of TEC may be badly measured."""
SAME_PCT = 0.1
"""Points of accuracy by which an fp32 engine may differ from its network: one image in a thousand, for rounding."""


class Finding(NamedTuple):
    """A fault (the check fails) or a warning, where, and what."""

    fault: bool
    where: str
    what: str


def check(store: Store) -> list[Finding]:
    """Every finding about the records of a results folder and the tables they make, as text that a terminal shows as it
    is."""
    return [Finding(each.fault, one_line(each.where), one_line(each.what)) for each in _findings(store)]


def _findings(store: Store) -> list[Finding]:
    findings: list[Finding] = []
    for path in store.record_paths():
        where = path.relative_to(store.results).as_posix()
        try:
            record, seal = read_record(path), fault_of_seal(path)
        except StoreError as error:
            findings.append(Finding(True, where, str(error)))
            continue
        findings += [Finding(True, where, what) for what in faults_of_place(path, record)]
        findings += [Finding(True, where, seal)] if seal else []
        findings += [Finding(fault, where, what) for fault, what in _record(record)]
    book = Book.read(store)  # what is no record, or cannot be, is left out of it: named above, or as a run
    rows = stage_rows(book)
    # of records, those that are sound one by one: what is wrong with others was named above
    told = {store.results / finding.where for finding in findings if finding.fault}
    findings += [Finding(True, "the table", line) for path, line in book.left_out if path not in told]
    findings += _devices(store)
    findings += _unreached(book)
    findings += _lives(book, rows)
    findings += _table(frame([row for row in rows if row.key], StageRow))  # the unmeasured rest on no record
    return findings


def _devices(store: Store) -> Iterator[Finding]:
    """Probes that cannot be used."""
    for path in store.device_paths():
        try:
            read_device(path)
        except StoreError as error:
            yield Finding(True, path.relative_to(store.results).as_posix(), str(error))


def _record(record: Record) -> Iterator[tuple[bool, str]]:
    found = list(faults(record))
    yield from ((True, what) for what in found)
    if found:  # the rest reads what may not be of its type
        return
    yield from _energy(record)
    for name in ("source", "device_name", "machine", "created", "commit"):
        if not getattr(record, name):
            yield True, f"provenance is incomplete: no {name}"
    if record.commit == "unknown":
        yield True, "provenance is incomplete: the commit is unknown"
    if record.commit.endswith("+dirty"):
        yield False, "was made by code that no commit holds"
    for name in ("python", "torch"):
        if name not in (record.provenance.get("versions") or {}):
            yield True, f"provenance is incomplete: no version of {name}"
    for module in record.provenance.get("outside", {}):
        yield False, f"was made by {module}, which lies in no commit of ours (its SHA-256 is in the record)"


def _energy(record: Record) -> Iterator[tuple[bool, str]]:
    if math.isnan(record.joules):
        if not record.reason:
            yield True, "energy is NaN without a reason"
        else:
            yield False, f"energy is NaN: {record.reason}"
        return
    if record.joules == 0 or record.seconds == 0:
        # a counter may not have moved in a stage that is over at once; whether that matters is judged by the life
        if record.seconds >= SHORTEST_S or record.seconds == 0:
            yield True, f"{record.joules} J in {record.seconds} s: nothing costs nothing"
        return
    watts = record.joules / record.seconds
    limit = record.provenance.get("power_limit_w") or HIGHEST_W
    if watts > 1.05 * limit:
        yield True, f"mean power {watts:.0f} W is above the limit of {limit:.0f} W"


def _unreached(book: Book) -> Iterator[Finding]:
    for record in book.unreached():
        what = f"{record.fn.rpartition(':')[2]} {record.key} on {record.machine} is reached by no run: no row shows it"
        yield Finding(False, "the table", what)


def _lives(book: Book, rows: Sequence[StageRow]) -> Iterator[Finding]:
    """Findings about whole lives."""
    own: dict[tuple[str, int], list[StageRow]] = {}
    for row in rows:
        own.setdefault((row.experiment, row.seed), []).append(row)
    for run in book.runs:
        where, mine = run.name, own.get((run.experiment, run.seed), [])
        yield from (Finding(False, where, line) for line in book.copies(run))
        yield from (Finding(True, where, line) for line in book.lost(run))
        if not mine and run.stages:
            why = "it has not run or was interrupted, or its records were removed"
            yield Finding(False, where, f"nothing of it is recorded: {why}")
        for phase, why in run.unmeasured.items():
            yield Finding(False, where, f"TEC is unknown, phase {phase}: {why}")
        if book.engine(run) is not None and book.inference(run) is None:
            what = "its engine has no measurement of inference: not taken yet, or its record was removed"
            yield Finding(False, where, f"{what}; the same command takes it")
        yield from _disturbed(where, mine)
        yield from _short(where, mine)
        yield from _deployed(where, run, book)


def _disturbed(where: str, rows: Sequence[StageRow]) -> Iterator[Finding]:
    """Lives beside which a CPU did other work: a warning, for the energy is what the meter said."""
    share_pct = others_pct(rows)
    if share_pct > DISTURBED_PCT:
        what = f"other programs took {share_pct:.0f} % of the computer's CPU time beside it"
        yield Finding(False, where, f"{what}, which raises its energies: {QUIET}")


def _short(where: str, rows: Sequence[StageRow]) -> Iterator[Finding]:
    """Stages too short for a meter: a fault only where what they may have cost matters to TEC."""
    tec = [row for row in rows if row.kind == "TEC"]
    total_wh = math.fsum(row.energy_wh for row in tec if not math.isnan(row.energy_wh))
    for row in tec:
        if is_estimate(row.energy_source) or row.seconds >= SHORTEST_S:
            continue
        bound_wh = _bound_w(row) * row.seconds / 3600
        if bound_wh > NEGLIGIBLE * total_wh:
            what = (
                f"{row.stage} {row.key}: the window of {row.seconds:.2f} s is too short for a meter, and the "
                f"{bound_wh:.2g} W.h that it may have cost are more than {100 * NEGLIGIBLE:g} % of TEC"
            )
            yield Finding(True, where, what)


def _bound_w(row: StageRow) -> float:
    """More power than the machine can draw: the limit in its name, or more than any board."""
    limit = re.search(r"-(\d+)w$", row.machine)
    return 1.05 * float(limit.group(1)) if limit else HIGHEST_W


def _deployed(where: str, run: RunFile, book: Book) -> Iterator[Finding]:
    """An fp32 engine must be as accurate as the network it was built of: else what is stored is not what was run."""
    pair = (book.network(run), book.engine(run))
    network, engine = (None if record is None else record.values.get("acc_pct") for record in pair)
    if run.words.deploy_precision != "fp32" or network is None or engine is None:
        return
    if not abs(network - engine) <= SAME_PCT:
        what = f"the network has {network:.2f} % on the test images, its fp32 engine {engine:.2f} %"
        yield Finding(True, where, f"{what}: what was deployed is not what was trained")


def _table(stages: pd.DataFrame) -> Iterator[Finding]:
    """Findings that only show when rows stand side by side."""
    tec = stages[stages["kind"] == "TEC"]
    for (name, _), own in tec.groupby(["experiment", "seed"]):
        boards = sorted(set(own["device_uuid"]) - {""})
        if len(boards) > 1:
            yield Finding(True, str(name), f"its TEC comes from different boards: {', '.join(boards)}")
    for name, own in stages.groupby("experiment"):
        assumed = sorted({source for source in own["energy_source"] if is_estimate(source)})
        if len(assumed) > 1:
            yield Finding(True, str(name), f"its energies rest on different assumptions: {', '.join(assumed)}")
    estimated = stages["energy_source"].map(is_estimate)
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
