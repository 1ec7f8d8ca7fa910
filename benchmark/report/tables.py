"""The two CSV files and the printed summary, all derived from records."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark import rows
from benchmark.store import Store, replace

SETTING = (
    "data",
    "scale",
    "profile",
    "train_precision",
    "deploy_precision",
    "engine",
    "train_hardware",
    "infer_hardware",
)
"""What rows of one table usually share."""

LABELS = {"train_precision": "train ", "deploy_precision": "deploy "}
"""What a value needs before it to be understood in a title."""


def write(store: Store, tau: float) -> tuple[pd.DataFrame, pd.DataFrame, list[Path]]:
    """Build results/stages.csv and results/summary.csv; returns both tables and where they lie."""
    stages = rows.stages(store)
    summary = rows.summary(store, stages, tau)
    paths = []
    for name, table in (("stages", stages), ("summary", summary)):
        path = store.results / f"{name}.csv"
        replace(path, table.to_csv(index=False).encode())
        paths.append(path)
    return stages, summary, paths


def show(summary: pd.DataFrame, console: Console) -> None:
    """Print the summary: a tilde marks estimated energy, and lines below say what it means and what is missing.

    A column that says the same in every row goes to the title.
    """
    same = [name for name in SETTING if summary[name].nunique() == 1]
    title = ", ".join(dict.fromkeys(LABELS.get(name, "") + str(summary[name].iloc[0]) for name in same))
    table = Table(title=f"Full-cycle energy: {title}", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("method", "model", *(name.replace("_precision", "") for name in SETTING if name not in same)):
        table.add_column(heading, no_wrap=True)
    for heading in ("n", "acc %", "TEC W.h", "IEC W.h", "G(500M)", "G(1B)", "grade"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.to_dict("records"):
        about = "~" if row["grade"] == "E" else ""
        table.add_row(
            row["method"],
            row["model"] if not row["teacher"] else f"{row['teacher']} -> {row['model']}",
            *(str(row[name]) for name in SETTING if name not in same),
            str(row["n_seeds"]),
            _number(row["acc_pct"], ".2f"),
            about + _with_interval(row["tec_wh"], row["tec_ci95_wh"]),
            about + _with_interval(row["iec_wh"], row["iec_ci95_wh"]),
            about + _number(row["g_500m"], ".4g"),
            about + _number(row["g_1b"], ".4g"),
            str(row["grade"]),
        )
    console.print(table)
    for line in footnotes(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def footnotes(summary: pd.DataFrame) -> list[str]:
    """What a reader must know before quoting a number of this table."""
    lines = []
    sources = ", ".join(sorted(set("+".join(summary["energy_source"]).split("+")) - {""}))
    lines.append(
        f"energy from {sources or 'nothing yet'}; G in percent^tau per W.h, tau = {summary['tau'].iloc[0]:g}; "
        "± is a 95 % interval"
    )
    if (summary["grade"] == "E").any():
        lines.append("~ estimated, not measured: no meter on that machine (python -m benchmark device says why)")
    if (summary["scale"] != "full").any():
        lines.append("scales other than full prove that the parts work; their rows say nothing about a method")
    lines += [
        f"incomplete: {row['experiment']}: {row['missing']}" for row in summary.to_dict("records") if row["missing"]
    ]
    return lines


def _with_interval(value: float, half_width: float) -> str:
    """A value with the half-width of its interval in percent."""
    if not _known(value):
        return "-"
    if not _known(half_width) or value == 0:
        return f"{value:.4g}"
    return f"{value:.4g} ±{100 * half_width / value:.2g}%"


def _number(value: float, style: str) -> str:
    return format(value, style) if _known(value) else "-"


def _known(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
