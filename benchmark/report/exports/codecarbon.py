"""The stages as CodeCarbon writes its runs: a line of emissions.csv for each record."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from benchmark.energy.judge.reading import is_of_gpu
from benchmark.errors import one_line
from benchmark.report.footprint import S_PER_H, WH_PER_KWH, Footprint
from benchmark.report.rows import StageRow

COLUMNS = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power",
    "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed",
    "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version",
    "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude",
    "ram_total_size", "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent",
    "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue",
)  # fmt: skip  # a list of names reads best in rows
"""Those of `EmissionsData` of CodeCarbon 3.3.2, in its order."""


def emissions_csv(stages: Sequence[StageRow], footprint: Footprint) -> str:
    """The content of emissions.csv: each record once, of an inference measurement the windows that count.

    Energies in kWh, powers in W, both times PUE as in CodeCarbon; emissions in kg CO2e, empty unless a grid was named.
    `energy_consumed` is the energy that rows are made of, that of the measured device; `tracking_mode` says by which
    meter it is known. Whatever no record tells is empty. `project_name` is the experiment, `experiment_id` the stage.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for row in stages:
        if row.key and row.first_mention:
            table.writerow(dict(_line(row, footprint)))
    return text.getvalue()


def cell(text: str) -> str:
    """A text that is one line and that no spreadsheet takes for a formula."""
    told = one_line(text)
    return f"'{told}" if told[:1] in ("=", "+", "-", "@") else told


def _line(row: StageRow, footprint: Footprint) -> Iterator[tuple[str, str]]:
    """The cells that a stage can fill."""
    energy_wh = row.measuring_wh if row.kind == "IEC" else row.energy_wh
    kwh = energy_wh / WH_PER_KWH * footprint.pue
    emissions_kg = kwh * footprint.g_per_kwh / 1000
    device = "gpu" if is_of_gpu(row.energy_source) else "cpu"
    power_w = energy_wh * S_PER_H / row.seconds * footprint.pue if row.seconds else math.nan
    for name, words in (
        ("timestamp", _time(row.created)),
        ("project_name", row.experiment),
        ("run_id", row.key),
        ("experiment_id", f"{row.phase}: {row.stage}"),
        ("country_name", footprint.place),
        ("country_iso_code", footprint.code),
        (f"{device}_model", row.device_name),
        ("tracking_mode", f"{row.energy_source} (grade {row.grade})"),
    ):
        yield name, cell(words)
    for name, value in (
        ("duration", row.seconds),
        ("emissions", emissions_kg),
        ("emissions_rate", emissions_kg / row.seconds if row.seconds else math.nan),
        (f"{device}_power", power_w),
        (f"{device}_energy", kwh),
        ("energy_consumed", kwh),
        ("gpu_utilization_percent", row.gpu_util_pct),
        ("pue", footprint.pue),
    ):
        yield name, repr(float(value)) if math.isfinite(value) else ""
    yield f"{device}_count", "1" if device == "gpu" else ""


def _time(created: str) -> str:
    """The time of a record as CodeCarbon writes it, to the second; empty where it is none."""
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return ""
