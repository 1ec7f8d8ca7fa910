"""The two CSV files and the printed summary, all derived from records."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmark import rows
from benchmark.store import Store, replace


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
    """Print the summary: a tilde marks estimated energy, and lines below say what it means and what is missing."""
    table = Table(title="Full-cycle energy", title_justify="left", caption_justify="left")
    for heading in ("method", "model", "data", "scale", "prec.", "n", "acc %", "TEC W.h", "IEC W.h", "G(500M)", "G(1B)", "meter"):
        table.add_column(heading, justify="right" if heading in ("n", "acc %", "TEC W.h", "IEC W.h", "G(500M)", "G(1B)") else "left")
    for row in summary.to_dict("records"):
        about = "~" if row["grade"] == "E" else ""
        table.add_row(
            row["method"],
            row["model"] if not row["teacher"] else f"{row['teacher']} -> {row['model']}",
            row["data"],
            row["scale"],
            f"{row['train_precision']}/{row['deploy_precision']}",
            str(row["n_seeds"]),
            _number(row["acc_pct"], ".2f"),
            about + _with_interval(row["tec_wh"], row["tec_ci95_wh"]),
            about + _with_interval(row["iec_wh"], row["iec_ci95_wh"]),
            about + _number(row["g_500m"], ".4g"),
            about + _number(row["g_1b"], ".4g"),
            f"{row['energy_source']} ({row['grade']})",
        )
    console.print(table)
    for line in footnotes(summary):
        console.print(line, markup=False, highlight=False)


def footnotes(summary: pd.DataFrame) -> list[str]:
    """What a reader must know before quoting a number of this table."""
    lines = []
    hardware = sorted({*summary["train_hardware"], *summary["infer_hardware"]})
    lines.append(f"hardware: {', '.join(hardware)}; G in percent^tau per W.h, tau = {summary['tau'].iloc[0]:g}; +- is a 95 % interval")
    if (summary["grade"] == "E").any():
        lines.append("~ estimated, not measured: no meter on that machine (python -m benchmark device says why)")
    if (summary["scale"] != "full").any():
        lines.append("scales other than full prove that the parts work; their rows say nothing about a method")
    lines += [f"incomplete: {row['experiment']}: {row['missing']}" for row in summary.to_dict("records") if row["missing"]]
    return lines


def _with_interval(value: float, half_width: float) -> str:
    """A value with its interval, in as many digits as the interval allows (two of its own)."""
    if not _known(value):
        return "-"
    if not _known(half_width) or half_width <= 0:
        return f"{value:.4g}"
    exponent = math.floor(math.log10(abs(value))) if value else 0
    digits = max(0, exponent - math.floor(math.log10(half_width)) + 1)
    if -3 <= exponent < 5:
        decimals = max(0, digits - exponent)
        return f"{value:.{decimals}f} +- {half_width:.{decimals}f}"
    return f"({value / 10**exponent:.{digits}f} +- {half_width / 10**exponent:.{digits}f})e{exponent:+03d}"


def _number(value: float, style: str) -> str:
    return format(value, style) if _known(value) else "-"


def _known(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
