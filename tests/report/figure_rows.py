"""Rows and records for figures, made by hand: no meter ever saw them."""

from __future__ import annotations

import math
from dataclasses import fields
from types import SimpleNamespace

from benchmark.energy.timeline.samples import Mark, Sample, packed
from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.report.rows import StageRow
from benchmark.report.summary import EMPTY, SummaryRow

MACHINE = "made-by-hand"
NOTHING = {each.name: "" if each.type == "str" else math.nan for each in fields(StageRow)}
COUNTED = "nvml:counter"


def summary_row(method: str, model: str = "net", **own) -> SummaryRow:
    """A complete row of one seed, measured."""
    words = {
        "method": method, "model": model, "experiment": f"{method}-{model}-0a1b2c3d", "data": "toy", "scale": "full",
        "train_machine": MACHINE, "infer_machine": MACHINE, "engine": "torch", "deploy_precision": "fp32", "grade": "B",
        "energy_source": COUNTED,
    }  # fmt: skip  # one value a line would hide the row
    numbers = {
        "n_seeds": 1, "tau": 2.0, "acc_pct": 70.0, "acc_ci95_pct": 0.0, "tec_wh": 100.0, "tec_ci95_wh": 2.0, "iec_wh": 1e-6,
        "iec_ci95_wh": 2e-8, "base_wh": 90.0, "compress_wh": 4.0, "retrain_wh": 6.0,
    }  # fmt: skip  # one value a line would hide the row
    return SummaryRow(**(EMPTY | words | numbers | own))


def stage_row(stage: str, **own) -> StageRow:
    """A stage of a life, measured by a counter."""
    words = {
        "experiment": "baseline-net-0a1b2c3d", "method": "baseline", "model": "net", "seed": 0, "phase": "base",
        "stage": stage, "kind": "TEC", "key": stage, "first_mention": True, "machine": MACHINE, "grade": "B",
        "energy_source": COUNTED, "seconds": 10.0, "energy_wh": 1.0, "shared_by": 1, "stage_version": 1, "attempts": 1,
    }  # fmt: skip  # one value a line would hide the row
    return StageRow(**(NOTHING | words | own))


class PlannedRun:
    """What the paper's tables ask of a run of seed 0."""

    def __init__(self, experiment: str, settings: dict[str, str], method: str = "baseline") -> None:
        self.experiment, self.settings, self.seed = experiment, settings, 0
        self.words = SimpleNamespace(
            method=method,
            model="nni/vgg16",
            teacher="",
            recipe="nni160",
            data="cifar100",
            scale="full",
            max_epochs=None,
        )


def record(key: str, details: dict, fn: str = "tests:it", group: str | None = None) -> Record:
    """A record that says nothing but these details."""
    return Record(
        key=key, fn=fn, fn_version=1, params={"signature": "s"}, inputs={}, joules=1.0, ci95_joules=0.1,
        repeated_joules=0.0, seconds=1.0, source=COUNTED, grade="B", reason="", values={}, details=details, reading={},
        provenance={}, device_name="none", machine=MACHINE, commit="", created="", attempts=1, group=group,
    )  # fmt: skip  # one value a line would hide the shape


def book_of(*records: Record, results=None) -> Book:
    """A book of stages' records and of measurements (those with a group)."""
    firsts = {(each.machine, each.key): each for each in records if each.group is None}
    measured = {(each.machine, f"s{number}"): [each] for number, each in enumerate(records) if each.group is not None}
    return Book(firsts=firsts, measured=measured, results=results)


def keep_samples(results, key: str, seconds: int = 10) -> None:
    """Ten readings of power a second beside a stage's record: 300 W in the first tenth of each second, else 100 W."""
    readings = [
        Sample(n / 10, "gpu0", "power.instant_mw", 300_000 if n % 10 == 0 else 100_000, 50.0)
        for n in range(10 * seconds)
    ]
    edges = ((0.0, "window.begin"), (2.0, "pause.begin"), (3.0, "pause.end"), (float(seconds), "window.end"))
    folder = results / "records" / MACHINE
    folder.mkdir(parents=True, exist_ok=True)
    content, _ = packed(readings, [Mark(t_s, "it", kind) for t_s, kind in edges])
    (folder / f"{key}.samples.csv.gz").write_bytes(content)
