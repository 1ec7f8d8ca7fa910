"""What the page shows, as plain data: groups of rows that may be compared, the stages they rest on, power over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.energy.judge.reading import is_estimate
from benchmark.plan.run_file import RunFile
from benchmark.records.book import Book
from benchmark.report.command import commands_of
from benchmark.report.paper import PaperRow
from benchmark.report.readings import power_of
from benchmark.report.rows import StageRow
from benchmark.report.summary import RIVALS, SummaryRow, disturbance
from benchmark.report.turns import cycle_of, even_words

Plain = dict[str, Any]

TRACE_POINTS = 120
"""Points of a power trace on the page: its shape, not its file (which the record names)."""

GRADE_WORDS = {
    "A": "a GPU's energy counter, whole ticks, agrees with sampled power",
    "B": "a GPU's energy counter, between ticks",
    "C": "the driver's own samples of power (boards without a counter)",
    "D": "polled power, or a counter in dispute",
    "R": "the host's meter (RAPL), or a meter of the user's",
    "E": "an estimate: no meter on that machine",
    "X": "unknown, with its reason",
    "": "not stated by its source",
}
"""What stands behind a grade of energy; docs/energy.md says it whole."""

PAPER_LABEL = "the paper's own table (training on a P100, inference on a TITAN V)"


@dataclass(frozen=True)
class Source:
    """What a page is made from: a results folder, read once, and the paper's rows."""

    book: Book
    stages: Sequence[StageRow]
    summary: Sequence[SummaryRow]
    paper: Sequence[PaperRow]
    results: Path


def content(source: Source, tau: float, mui: float = 1e9) -> Plain:
    """Everything on the page, which opens at `tau` and `mui`. A number that is not known is None."""
    groups = [*_own_groups(source), *([_paper_group(source.paper)] if source.paper else [])]
    shown = {key for group in groups for row in group["rows"] for key in row["stages"]}
    firsts = {_place(row): row for row in reversed(source.stages) if row.key and _place(row) in shown}
    return {
        "newest": max((row.created for row in source.stages), default=""),
        "tau": tau,
        "mui": mui,
        "grades": GRADE_WORDS,
        "groups": groups,
        "stages": {place: _stage(row) for place, row in firsts.items()},
        "traces": {place: found for place, row in _traced(firsts) if (found := trace(_samples(source.results, row)))},
        "left_out": len(source.book.unreadable),
    }


def _traced(rows: Mapping[str, StageRow]) -> Iterator[tuple[str, StageRow]]:
    """Stages with readings of their own: those of an inference are of all engines that took turns with it."""
    yield from ((place, row) for place, row in rows.items() if row.kind != "IEC")


def _own_groups(source: Source) -> list[Plain]:
    """Rows by whom they may be compared with, the largest group first."""
    found: dict[tuple[str, ...], list[SummaryRow]] = {}
    for row in source.summary:
        found.setdefault(tuple(str(getattr(row, name)) for name in RIVALS), []).append(row)
    runs: dict[str, list[RunFile]] = {}
    for run in source.book.runs:
        runs.setdefault(run.experiment, []).append(run)
    stages: dict[str, list[StageRow]] = {}
    for stage in source.stages:
        stages.setdefault(stage.experiment, []).append(stage)
    ordered = sorted(found.values(), key=lambda rows: (rows[0].scale != "full", -len(rows)))
    return [_own_group(rows, runs, stages) for rows in ordered]


def _own_group(rows: Sequence[SummaryRow], runs: dict[str, list[RunFile]], stages: dict[str, list[StageRow]]) -> Plain:
    first = rows[0]
    told = {name: str(getattr(first, name)) for name in RIVALS}
    label = f"{first.scale} scale, {first.data}, {first.infer_machine}, {first.engine}, {first.profile} profile"
    return {
        "label": label,
        "kind": "ours",
        "scale": first.scale,
        "hardware": first.infer_machine if first.train_machine == first.infer_machine else _two(first),
        "facts": {name: value for name, value in told.items() if value not in ("", "nan")},
        "rows": [_own_row(row, runs.get(row.experiment, []), stages.get(row.experiment, [])) for row in rows],
    }


def _two(row: SummaryRow) -> str:
    return f"trained on {row.train_machine}, inference on {row.infer_machine}"


def _own_row(row: SummaryRow, runs: Sequence[RunFile], stages: Sequence[StageRow]) -> Plain:
    cycle = cycle_of(row)
    seeds = sorted(runs, key=lambda run: run.seed)
    return {
        "id": row.experiment,
        "family": row.method.partition("/")[0],
        "method": row.method,
        "network": row.model if not row.teacher else f"{row.teacher} -> {row.model}",
        "settings": row.settings,
        "grade": row.grade,
        "estimate": row.grade == "E" or is_estimate(row.energy_source),
        "meter": row.energy_source,
        "n": row.n_seeds,
        "acc": _pair(*cycle.acc_pct),
        "tec": _pair(*cycle.tec_wh),
        "iec": _pair(*cycle.iec_wh),
        "phases": {name: _known(getattr(row, f"{name}_wh")) for name in ("base", "compress", "retrain")},
        "deploy": _known(row.deploy_wh),
        "spent": _known(row.spent_making_wh),
        "params": _known(row.params),
        "macs": _known(row.macs),
        "precision": row.executed_precision or row.deploy_precision,
        "even": even_words(row),
        "missing": row.missing,
        "notes": list(filter(None, (row.warning, row.notes, *disturbance([row]), _needs(seeds)))),
        "command": commands_of(seeds),
        "stages": list(dict.fromkeys(_place(stage) for stage in stages if stage.key)),
    }


def _needs(runs: Sequence[RunFile]) -> str:
    """What the command of a row needs beside itself: only the reader knows where a network of one's own lies."""
    own = any(run.settings.get("model.code") for run in runs)
    return "its command needs the --config-dir and the PYTHONPATH of this network" if own else ""


def _paper_group(rows: Sequence[PaperRow]) -> Plain:
    """The paper's table: it prints no intervals, no stages and no seeds."""
    words = dict.fromkeys(("settings", "even", "missing", "command", "grade", "precision"), "")
    numbers = dict.fromkeys(("deploy", "spent", "params", "macs"))
    nothing: Plain = {**words, **numbers, "estimate": False, "phases": {}, "stages": [], "n": 0}
    return {
        "label": PAPER_LABEL,
        "kind": "paper",
        "scale": "full",
        "hardware": "P100, TITAN V (the paper's)",
        "facts": {"source": "Li et al. 2021, Tables 3 and 5"},
        "rows": [
            {
                **nothing,
                "id": f"paper-{number}",
                "family": row.family,
                "method": row.method,
                "network": row.model + (f", searched on {row.search}" if row.search else ""),
                "meter": "nvidia-smi, polled",
                "acc": _pair(row.acc_pct, math.nan),
                "tec": _pair(row.tec_wh, math.nan),
                "iec": _pair(row.iec_wh, math.nan),
                "notes": [],
            }
            for number, row in enumerate(rows)
        ],
    }


def _stage(row: StageRow) -> Plain:
    measured = row.kind == "IEC"
    return {
        "phase": row.phase,
        "stage": row.stage,
        "key": row.key,
        "kind": row.kind,
        "shared": row.shared_by,
        "wh": _known(row.measuring_wh if measured else row.energy_wh),
        "ci": None if measured else _known(row.energy_ci95_wh),
        "repeated": _known(row.repeated_wh),
        "iec": _known(row.iec_wh),
        "batch": _known(row.batch_size),
        "seconds": _known(row.seconds),
        "watts": _known(row.mean_power_w),
        "grade": row.grade,
        "meter": row.energy_source,
        "reason": row.reason,
        "acc": _known(row.acc_pct),
        "machine": row.machine,
        "device": row.device_name,
        "torch": row.torch_version,
        "commit": row.commit,
        "created": row.created,
    }


def _place(row: StageRow) -> str:
    return f"{row.machine}/{row.key}"


def _samples(results: Path, row: StageRow) -> Path:
    return results / "records" / row.machine / f"{row.key}.samples.csv.gz"


def trace(path: Path) -> list[list[float]]:
    """Mean power in at most TRACE_POINTS slots of a stage's readings, as [seconds, watts]; empty where there is no file
    (an estimate keeps no readings), or one that holds no power."""
    found = power_of(path)
    if found is None:
        return []
    first, length = found.points[0][0], found.points[-1][0] - found.points[0][0]
    slots: dict[int, list[float]] = {}
    for seconds, watts in found.points:
        slots.setdefault(int((seconds - first) / (length or 1) * (TRACE_POINTS - 1)), []).append(watts)
    return [
        [round(number / (TRACE_POINTS - 1) * length, 3), round(math.fsum(own) / len(own), 2)]
        for number, own in sorted(slots.items())
    ]


def _pair(value: float, half_width: float) -> list[float | None]:
    return [_known(value), _known(half_width)]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
