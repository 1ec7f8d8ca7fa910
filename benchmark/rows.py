"""Records to rows: every number in a table is computed here from plans and records, and nowhere typed in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.config import ConfigError, experiment
from benchmark.energy.reading import worst
from benchmark.energy.stats import mean_ci95
from benchmark.greeness import TAU, greeness, greeness_ci95, rank_ranges
from benchmark.life import Life, Place, lives
from benchmark.stage import TEC_PHASES, Phase, Stage
from benchmark.store import Record, Store

J_PER_WH = 3600.0

STAGE_COLUMNS = (
    "experiment", "method", "model", "teacher", "data", "scale", "seed", "profile", "train_precision",
    "deploy_precision", "phase", "stage", "key", "kind", "energy_wh", "energy_ci95_wh", "repeated_wh", "seconds",
    "mean_power_w", "gpu_util_pct", "mem_util_pct", "n_inferences", "batch_size", "acc_pct", "energy_source",
    "grade", "hardware", "device_name", "commit", "created", "iec_wh", "iec_ci95_wh", "iec_dynamic_wh",
    "single_stream_wh", "engine", "reason", "gpu_wh", "cpu_wh", "dram_wh", "paper_compat_wh", "device_uuid",
    "torch_version", "cuda_version", "driver", "stage_version", "attempts", "params", "macs",
)  # fmt: skip  # a list of names reads best in rows

SUMMARY_COLUMNS = (
    "experiment", "method", "model", "teacher", "data", "scale", "profile", "train_precision", "deploy_precision",
    "engine", "tec_wh", "tec_ci95_wh", "iec_wh", "iec_ci95_wh", "deploy_wh", "spent_wh", "acc_pct",
    "trained_acc_pct", "g_500m", "g_1b", "tau", "params", "macs", "n_seeds", "train_hardware", "infer_hardware",
    "energy_source", "grade", "missing", "acc_ci95_pct", "g_500m_ci95", "g_1b_ci95", "rank_500m", "rank_1b",
    "iec_dynamic_wh", "single_stream_wh",
)  # fmt: skip  # a list of names reads best in rows

IDENTITY = ("experiment", "train_hardware", "infer_hardware")


@dataclass
class Book:
    """All records of a results folder, read once, and every life cycle that was ever asked for.

    Of several runs of one life (another library version), the newest counts. `stale` names the runs that no longer
    parse.
    """

    lives: list[tuple[str, Life]]
    firsts: dict[tuple[str, str], Record]
    repeated: dict[tuple[str, str], float]
    measured: dict[tuple[str, str], Record]
    stale: list[str]

    @classmethod
    def read(cls, store: Store) -> Book:
        """Read a results folder. Raises StoreError at a file that is no record."""
        book = cls([], {}, {}, {}, [])
        for record in store.records():
            where = (record.profile, record.key)
            if record.repeat:
                book.repeated[where] = book.repeated.get(where, 0.0) + record.joules + record.repeated_joules
            elif record.group is None:
                book.firsts[where] = record
            elif where not in book.measured or record.created > book.measured[where].created:
                book.measured[where] = record
        newest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for run in store.runs():
            identity = (run["experiment"], run["train_profile"], run["infer_profile"], run["seed"])
            if identity not in newest or run["created"] > newest[identity]["created"]:
                newest[identity] = run
        for run in newest.values():
            try:
                values = {**run["config"], "paths": {"data": "", "artifacts": "", "results": ""}}
                place = Place(run["train_profile"], run["infer_profile"], run["binding"])
                book.lives += [(run["experiment"], life) for life in lives(experiment(values), place)]
            except ConfigError as error:
                book.stale.append(f"the stored run {run['experiment']} no longer parses and is left out: {error}")
        return book

    def record(self, life: Life, phase: Phase, key: str) -> Record | None:
        """The record that counts for a stage of a life cycle."""
        return self.firsts.get((life.profile(phase), key))

    def inference(self, life: Life) -> tuple[Stage, Record] | None:
        """The newest measurement of the life's network shape."""
        built = self.record(life, Phase.DEPLOY, life.key(life.build))
        if built is None:
            return None
        stage = life.measurement(str(built.details["signature"]))
        found = self.measured.get((life.place.infer_profile, life.key(stage)))
        return (stage, found) if found else None


def stages(book: Book) -> pd.DataFrame:
    """A row per stage and life cycle, inference included; stages that were not worked yet have no row."""
    rows = []
    for name, life in book.lives:
        for phase, stage in life.steps():
            record = book.record(life, phase, life.key(stage))
            if record is not None:
                again = record.repeated_joules + book.repeated.get((record.profile, record.key), 0.0)
                rows.append({"experiment": name, **_row(life, phase, stage, record, again)})
        inference = book.inference(life)
        if inference is not None:
            rows.append({"experiment": name, **_row(life, Phase.INFER, *inference, 0.0)})
    return pd.DataFrame(rows, columns=[*STAGE_COLUMNS, *IDENTITY[1:]])


def _row(life: Life, phase: Phase, stage: Stage, record: Record, repeated_joules: float) -> dict[str, Any]:
    task, reading, values = life.task, record.reading, record.values
    kind = "TEC" if phase in TEC_PHASES else "deploy" if phase is Phase.DEPLOY else "IEC"
    seconds = record.seconds
    return {
        "method": life.experiment.method["name"],
        "model": task.model.name,
        "teacher": task.teacher.name if task.teacher else "",
        "data": task.data.name,
        "scale": task.scale.name,
        "seed": task.seed,
        "profile": task.profile,
        "train_precision": task.train_precision,
        "deploy_precision": life.plan.deploy.name,
        "engine": life.experiment.engine,
        "phase": str(phase),
        "stage": stage.name,
        "key": record.key,
        "kind": kind,
        "energy_wh": record.joules / J_PER_WH,
        "energy_ci95_wh": record.ci95_joules / J_PER_WH,
        "repeated_wh": repeated_joules / J_PER_WH,
        "seconds": seconds,
        "mean_power_w": record.joules / seconds if seconds else math.nan,
        "gpu_util_pct": _number(reading.get("gpu_util_pct")),
        "mem_util_pct": _number(reading.get("mem_util_pct")),
        "n_inferences": values.get("n_inferences", math.nan),
        "batch_size": values.get("batch_size", math.nan),
        "acc_pct": values.get("acc_pct", math.nan),
        "iec_wh": values.get("iec_joules", math.nan) / J_PER_WH,
        "iec_ci95_wh": values.get("iec_ci95_joules", math.nan) / J_PER_WH,
        "iec_dynamic_wh": values.get("iec_dynamic_joules", math.nan) / J_PER_WH,
        "single_stream_wh": values.get("single_stream_joules", math.nan) / J_PER_WH,
        "gpu_wh": _number(reading.get("gpu_joules")) / J_PER_WH,
        "cpu_wh": _number(reading.get("cpu_joules")) / J_PER_WH,
        "dram_wh": _number(reading.get("dram_joules")) / J_PER_WH,
        "paper_compat_wh": _number(reading.get("paper_compat_joules")) / J_PER_WH,
        "energy_source": record.source,
        "grade": record.grade,
        "reason": record.reason,
        "hardware": record.profile,
        "device_name": record.device_name,
        "device_uuid": record.provenance.get("device_uuid", ""),
        "torch_version": record.provenance.get("versions", {}).get("torch", ""),
        "cuda_version": record.provenance.get("versions", {}).get("cuda", ""),
        "driver": record.provenance.get("driver", ""),
        "stage_version": record.fn_version,
        "commit": record.commit,
        "created": record.created,
        "attempts": record.attempts,
        "params": values.get("params", math.nan),
        "macs": values.get("macs", math.nan),
        "train_hardware": life.place.train_profile,
        "infer_hardware": life.place.infer_profile,
    }


def summary(book: Book, table: pd.DataFrame, tau: float = TAU) -> pd.DataFrame:
    """A row per experiment: means over its complete seeds.

    An experiment without a complete one has a row too, its gaps named in `missing`.
    """
    wanted: dict[tuple[str, str, str], list[Life]] = {}
    for name, life in book.lives:
        wanted.setdefault((name, life.place.train_profile, life.place.infer_profile), []).append(life)
    own = {identity: rows for identity, rows in table.groupby(list(IDENTITY))}  # noqa: C416 - a dict of a GroupBy
    rows = [_summary_row(identity, group, own.get(identity, table[:0]), tau) for identity, group in wanted.items()]
    found = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)).sort_values("experiment", ignore_index=True)
    return _ranked(found)


COMPARABLE = ("data", "scale", "profile", "train_precision", "train_hardware", "infer_hardware")
"""Rows that differ in one of these are no rivals: they have no rank among each other."""


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Ranks by G among comparable rows, as ranges: '1-3' is a tie of three that the intervals do not tell apart."""
    for name in ("g_500m", "g_1b"):
        column = f"rank_{name.removeprefix('g_')}"
        table[column] = ""
        for _, own in table.groupby(list(COMPARABLE)):
            ranges = rank_ranges(own[name].astype(float).tolist(), own[f"{name}_ci95"].astype(float).tolist())
            for place, ranks in zip(own.index, ranges, strict=True):
                low, high = ranks or (0, 0)
                table.loc[place, column] = "" if not ranks else str(low) if low == high else f"{low}-{high}"
    return table


def _summary_row(identity: tuple[str, ...], group: list[Life], own: pd.DataFrame, tau: float) -> dict[str, Any]:
    life = group[0]
    missing, seeds = [], []
    for each in group:
        rows = own[own["seed"] == each.task.seed]
        absent = [stage.name for _, stage in each.steps() if each.key(stage) not in set(rows["key"])]
        absent += ["inference"] if not (rows["kind"] == "IEC").any() else []
        if absent:
            missing.append(f"seed {each.task.seed}: {', '.join(absent)}")
        else:
            seeds.append(_seed_row(rows))
    row: dict[str, Any] = {
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
        "energy_source": "+".join(sorted(set(own["energy_source"]))),
        # the grade of what G is made of: building an engine is too short for a good one, and is no part of G
        "grade": worst(list(own.loc[own["kind"] != "deploy", "grade"])),
    }
    if not seeds:
        return row
    # what was really spent, over all seeds: a record that serves several of them counts once
    once = own[own["kind"] != "IEC"].drop_duplicates("key")
    return {**row, **_means(seeds, tau), "spent_wh": (once["energy_wh"] + once["repeated_wh"]).sum(skipna=False)}


def _seed_row(rows: pd.DataFrame) -> dict[str, float]:
    """One complete life cycle in numbers."""
    tec, deploy, infer = (rows[rows["kind"] == kind] for kind in ("TEC", "deploy", "IEC"))
    last = tec.iloc[-1]
    return {
        "tec_wh": tec["energy_wh"].sum(skipna=False),
        "tec_ci95_wh": math.sqrt((tec["energy_ci95_wh"] ** 2).sum(skipna=False)),
        "iec_wh": infer["iec_wh"].iloc[-1],
        "iec_ci95_wh": infer["iec_ci95_wh"].iloc[-1],
        "iec_dynamic_wh": infer["iec_dynamic_wh"].iloc[-1],
        "single_stream_wh": infer["single_stream_wh"].iloc[-1],
        "deploy_wh": deploy["energy_wh"].sum(skipna=False),
        "params": deploy["params"].iloc[-1],
        "macs": deploy["macs"].iloc[-1],
        "acc_pct": deploy["acc_pct"].iloc[-1],
        "trained_acc_pct": last["acc_pct"],
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


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
