"""Records to rows: every number in a table is computed here from plans and records, and nowhere typed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.plan.config import ConfigError, experiment
from benchmark.plan.life import Life, Place, lives
from benchmark.plan.stage import TEC_PHASES, Phase, Stage
from benchmark.records.store import Record, Store

J_PER_WH = 3600.0

STAGE_COLUMNS = (
    "experiment", "method", "model", "teacher", "data", "scale", "seed", "profile", "train_precision",
    "deploy_precision", "phase", "stage", "key", "kind", "energy_wh", "energy_ci95_wh", "repeated_wh", "seconds",
    "mean_power_w", "gpu_util_pct", "mem_util_pct", "n_inferences", "batch_size", "acc_pct", "energy_source",
    "grade", "hardware", "device_name", "commit", "created", "iec_wh", "iec_ci95_wh", "iec_dynamic_wh",
    "single_stream_wh", "engine", "reason", "gpu_wh", "cpu_wh", "dram_wh", "paper_compat_wh",
    "paper_compat_period_wh", "device_uuid", "torch_version", "cuda_version", "driver", "stage_version",
    "attempts", "params", "macs",
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
            where = (record.machine, record.key)
            if record.repeat:
                book.repeated[where] = book.repeated.get(where, 0.0) + record.joules + record.repeated_joules
            elif record.group is None:
                book.firsts[where] = record
            elif where not in book.measured or record.created > book.measured[where].created:
                book.measured[where] = record
        newest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for run in store.runs():
            identity = (run["experiment"], run["train_machine"], run["infer_machine"], run["seed"])
            if identity not in newest or run["created"] > newest[identity]["created"]:
                newest[identity] = run
        for run in newest.values():
            try:
                values = {**run["config"], "paths": {"data": "", "artifacts": "", "results": ""}}
                place = Place(run["train_machine"], run["infer_machine"], run["binding"])
                book.lives += [(run["experiment"], life) for life in lives(experiment(values), place)]
            except ConfigError as error:
                book.stale.append(f"the stored run {run['experiment']} no longer parses and is left out: {error}")
        return book

    def record(self, life: Life, phase: Phase, key: str) -> Record | None:
        """The record that counts for a stage of a life cycle."""
        return self.firsts.get((life.machine(phase), key))

    def inference(self, life: Life) -> tuple[Stage, Record] | None:
        """The newest measurement of the life's network shape."""
        built = self.record(life, Phase.DEPLOY, life.key(life.build))
        if built is None:
            return None
        stage = life.measurement(str(built.details["signature"]))
        found = self.measured.get((life.place.infer_machine, life.key(stage)))
        return (stage, found) if found else None


def stages(book: Book) -> pd.DataFrame:
    """A row per stage and life cycle, inference included; stages that were not worked yet have no row."""
    rows = []
    for name, life in book.lives:
        for phase, stage in life.steps():
            record = book.record(life, phase, life.key(stage))
            if record is not None:
                again = record.repeated_joules + book.repeated.get((record.machine, record.key), 0.0)
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
        "paper_compat_period_wh": _number(reading.get("paper_compat_period_joules")) / J_PER_WH,
        "energy_source": record.source,
        "grade": record.grade,
        "reason": record.reason,
        "hardware": record.machine,
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
        "train_hardware": life.place.train_machine,
        "infer_hardware": life.place.infer_machine,
    }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
