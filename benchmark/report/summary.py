"""Rows of stages to a row per experiment: TEC, IEC, accuracy, G with its interval, and ranks that show ties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmark.energy.reading import worst
from benchmark.energy.stats import mean_ci95
from benchmark.plan.life import Life
from benchmark.report.greeness import TAU, greeness, greeness_ci95, rank_ranges
from benchmark.report.rows import IDENTITY, Book

SUMMARY_COLUMNS = (
    "experiment", "method", "model", "teacher", "data", "scale", "profile", "train_precision", "deploy_precision",
    "engine", "tec_wh", "tec_ci95_wh", "iec_wh", "iec_ci95_wh", "deploy_wh", "spent_wh", "acc_pct",
    "trained_acc_pct", "g_500m", "g_1b", "tau", "params", "macs", "n_seeds", "train_hardware", "infer_hardware",
    "energy_source", "grade", "missing", "acc_ci95_pct", "g_500m_ci95", "g_1b_ci95", "rank_500m", "rank_1b",
    "iec_dynamic_wh", "single_stream_wh", "settings",
)  # fmt: skip  # a list of names reads best in rows

SHOWN = (
    "method", "model", "teacher", "data", "scale", "profile", "train_precision", "deploy_precision", "engine",
    "train_hardware", "infer_hardware",
)  # fmt: skip  # same
"""What rows are told apart by; those that agree in all of it need `settings`."""

COMPARABLE = ("data", "scale", "profile", "train_precision", "train_hardware", "infer_hardware")
"""Rows that differ in one of these are no rivals: they have no rank among each other."""

Row = dict[str, Any]


def summarise(book: Book, stages: pd.DataFrame, tau: float = TAU) -> pd.DataFrame:
    """A row per experiment: means over its complete seeds.

    An experiment without a complete one has a row too, its gaps named in `missing`.
    """
    wanted: dict[tuple[str, str, str], list[Life]] = {}
    for name, life in book.lives:
        wanted.setdefault((name, life.place.train_machine, life.place.infer_machine), []).append(life)
    own: dict[tuple[str, str, str], list[Row]] = {identity: [] for identity in wanted}
    for row in stages.to_dict("records"):
        first, train, infer = (str(row[name]) for name in IDENTITY)
        own[first, train, infer].append({str(name): value for name, value in row.items()})
    rows = [_experiment(identity, group, own[identity], tau) for identity, group in wanted.items()]
    tell_apart(rows, {identity: group[0] for identity, group in wanted.items()})
    rows.sort(key=lambda row: str(row["experiment"]))
    _rank(rows)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _experiment(identity: tuple[str, str, str], group: list[Life], own: list[Row], tau: float) -> Row:
    life, missing, seeds = group[0], [], []
    for each in group:
        rows = [row for row in own if row["seed"] == each.task.seed]
        keys, kinds = {row["key"] for row in rows}, {row["kind"] for row in rows}
        absent = [stage.name for _, stage in each.steps() if each.key(stage) not in keys]
        absent += [] if "IEC" in kinds else ["inference"]
        if absent:
            missing.append(f"seed {each.task.seed}: {', '.join(absent)}")
        else:
            seeds.append(_seed(rows))
    row: Row = {
        "experiment": identity[0],
        "method": life.experiment.method["name"],
        "model": life.task.model.name,
        "teacher": life.task.teacher.name if life.task.teacher else "",
        "data": life.task.data.name,
        "scale": life.task.scale.name,
        "profile": life.task.profile,
        "train_precision": life.task.train_precision,
        "deploy_precision": life.plan.deploy.name,
        "engine": life.experiment.engine,
        "tau": tau,
        "n_seeds": len(seeds),
        "train_hardware": identity[1],
        "infer_hardware": identity[2],
        "missing": "; ".join(missing),
        "energy_source": "+".join(sorted({row["energy_source"] for row in own})),
        # the grade of what G is made of: building an engine is too short for a good one, and is no part of G
        "grade": worst([row["grade"] for row in own if row["kind"] != "deploy"]),
    }
    if not seeds:
        return row
    # what was really spent, over all seeds: a record that serves several of them counts once
    once = {row["key"]: row["energy_wh"] + row["repeated_wh"] for row in own if row["kind"] != "IEC"}
    return {**row, **_means(seeds, tau), "spent_wh": math.fsum(once.values())}


def tell_apart(rows: list[Row], lives: dict[tuple[str, str, str], Life]) -> None:
    """Give rows that would look alike `settings`: the values, of method, recipe and task, in which they differ."""
    alike: dict[tuple[str, ...], list[tuple[Row, dict[str, str]]]] = {}
    for row, life in zip(rows, lives.values(), strict=True):
        task = life.task.model_dump(mode="json", exclude={"seed", "model", "teacher", "data", "scale"})
        values = {**_flat(task), **_flat(life.experiment.method)}
        alike.setdefault(tuple(str(row[name]) for name in SHOWN), []).append((row, values))
    for group in alike.values():
        names = dict.fromkeys(name for _, values in group for name in values)
        differing = [name for name in names if len({values.get(name) for _, values in group}) > 1]
        for row, values in group:
            row["settings"] = " ".join(f"{name}={values[name]}" for name in differing if name in values)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: str(value)}
    return found


def _seed(rows: list[Row]) -> dict[str, float]:
    """One complete life cycle in numbers."""
    tec, deploy, infer = ([row for row in rows if row["kind"] == kind] for kind in ("TEC", "deploy", "IEC"))
    built, measured = deploy[-1], infer[-1]
    return {
        "tec_wh": math.fsum(row["energy_wh"] for row in tec),
        "tec_ci95_wh": math.hypot(*(row["energy_ci95_wh"] for row in tec)),
        "iec_wh": measured["iec_wh"],
        "iec_ci95_wh": measured["iec_ci95_wh"],
        "iec_dynamic_wh": measured["iec_dynamic_wh"],
        "single_stream_wh": measured["single_stream_wh"],
        "deploy_wh": math.fsum(row["energy_wh"] for row in deploy),
        "params": built["params"],
        "macs": built["macs"],
        "acc_pct": built["acc_pct"],
        "trained_acc_pct": tec[-1]["acc_pct"],
    }


def _means(seeds: list[dict[str, float]], tau: float) -> dict[str, float]:
    """Means over seeds. The interval of TEC: the meter's own, and over seeds where there are several, in quadrature."""
    row = {name: _mean(seed[name] for seed in seeds) for name in seeds[0]}
    tec = mean_ci95([seed["tec_wh"] for seed in seeds])
    if tec.n > 1:
        row["tec_ci95_wh"] = math.hypot(tec.half_width, row["tec_ci95_wh"])
    acc = mean_ci95([seed["acc_pct"] for seed in seeds])
    # one seed says nothing of the spread over seeds: its accuracy then counts as exact, and n_seeds = 1 stands beside
    # it
    row["acc_ci95_pct"] = acc.half_width if acc.n > 1 else math.nan
    spread = acc.half_width if acc.n > 1 else 0.0
    for name, mui in (("g_500m", 5e8), ("g_1b", 1e9)):
        row[name] = greeness(row["acc_pct"], row["tec_wh"], row["iec_wh"], mui, tau)
        tec_wh, iec_wh = (row["tec_wh"], row["tec_ci95_wh"]), (row["iec_wh"], row["iec_ci95_wh"])
        row[f"{name}_ci95"] = greeness_ci95((row["acc_pct"], spread), tec_wh, iec_wh, mui, tau)
    return row


def _rank(rows: Sequence[Row]) -> None:
    """Ranks by G among comparable rows, as ranges: '1-3' is a tie of three that the intervals do not tell apart."""
    rivals: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        rivals.setdefault(tuple(row[name] for name in COMPARABLE), []).append(row)
    for name in ("g_500m", "g_1b"):
        for own in rivals.values():
            values = [float(row.get(name, math.nan)) for row in own]
            half_widths = [float(row.get(f"{name}_ci95", math.nan)) for row in own]
            for row, ranks in zip(own, rank_ranges(values, half_widths), strict=True):
                row[f"rank_{name.removeprefix('g_')}"] = _words(ranks)


def _words(ranks: tuple[int, int] | None) -> str:
    if ranks is None:
        return ""
    low, high = ranks
    return str(low) if low == high else f"{low}-{high}"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
