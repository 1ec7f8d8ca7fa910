"""The two CSV files and the printed summary, all derived from records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.records.store import Store, replace
from benchmark.report import rows
from benchmark.report.summary import summarise

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


def write(store: Store, tau: float) -> tuple[pd.DataFrame, list[str], list[Path]]:
    """Build results/stages.csv and results/summary.csv; returns the summary, lines on runs left out, and the files.

    Where nothing was ever run, nothing is written.
    """
    book = rows.Book.read(store)
    stages = rows.stages(book)
    summary = summarise(book, stages, tau)
    paths: list[Path] = []
    if not summary.empty:
        for name, table in (("stages", stages), ("summary", summary)):
            paths.append(store.results / f"{name}.csv")
            replace(paths[-1], table.to_csv(index=False).encode())
    return summary, book.stale, paths


NARROW = 105
"""Below this many characters a table leaves out what the CSV file tells too: no number is ever cut."""


def show(summary: pd.DataFrame, console: Console) -> None:
    """Print the summary: a tilde marks estimated energy, and lines below say what it means and what is missing.

    A column that says the same in every row goes to the title.
    """
    narrow = console.width < NARROW
    same = [name for name in SETTING if summary[name].nunique() == 1]
    varied = [name for name in SETTING if name not in same]
    title = ", ".join(dict.fromkeys(LABELS.get(name, "") + str(summary[name].iloc[0]) for name in same))
    console.print(f"Full-cycle energy: {title}", highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD)
    words, numbers = (["method, model"], ["acc %", "TEC W.h", "IEC W.h", "G(1B)"])
    if not narrow:
        words, numbers = (
            ["method", "model"],
            ["n", "acc %", "TEC W.h", "IEC W.h", "G(500M)", "G(1B)", "rank(1B)", "grade"],
        )
    if summary["settings"].any() and not narrow:
        varied.append("settings")
    for heading in (*words, *(name.replace("_precision", "") for name in varied)):
        table.add_column(heading, overflow="fold")  # words take a second line before a number is cut
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.to_dict("records"):
        cells = _cells({str(name): value for name, value in row.items()})
        first = (
            [f"{cells['method']} {cells['model']} {row['settings']}"] if narrow else [cells["method"], cells["model"]]
        )
        table.add_row(*first, *(str(row[name]) for name in varied), *(cells[name] for name in numbers))
    console.print(table)
    for line in footnotes(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """A row's values as they are printed, by heading."""
    about = "~" if row["grade"] == "E" else ""
    return {
        "method": row["method"],
        "model": row["model"] if not row["teacher"] else f"{row['teacher']} -> {row['model']}",
        "n": str(row["n_seeds"]),
        "acc %": _number(row["acc_pct"], ".2f"),
        "TEC W.h": _with_interval(row["tec_wh"], row["tec_ci95_wh"], about),
        "IEC W.h": _with_interval(row["iec_wh"], row["iec_ci95_wh"], about),
        "G(500M)": _number(row["g_500m"], ".4g", about),
        "G(1B)": _number(row["g_1b"], ".4g", about),
        "rank(1B)": row["rank_1b"] or "-",
        "grade": str(row["grade"]),
    }


def footnotes(summary: pd.DataFrame) -> list[str]:
    """What a reader must know before quoting a number of this table."""
    lines = []
    sources = ", ".join(sorted(set("+".join(summary["energy_source"]).split("+")) - {""}))
    lines.append(
        f"energy from {sources or 'nothing yet'}; G in percent^tau per W.h, tau = {summary['tau'].iloc[0]:g}; "
        "± is a 95 % interval"
    )
    if summary["rank_1b"].str.contains("-").any():
        lines.append("a rank such as 1-3 is a tie: the intervals do not tell these rows apart")
    if (summary["n_seeds"] == 1).any():
        lines.append("n = 1: intervals and ranks hold what the meter leaves open, not the spread between seeds")
    if (summary["grade"] == "E").any():
        lines.append("~ estimated, not measured: no meter on that machine (python -m benchmark device says why)")
    if (summary["scale"] != "full").any():
        lines.append("scales other than full prove that the parts work; their rows say nothing about a method")
    lines += [
        f"incomplete: {row['experiment']}: {row['missing']}" for row in summary.to_dict("records") if row["missing"]
    ]
    return lines


def _with_interval(value: float, half_width: float, about: str) -> str:
    """A value with the half-width of its interval in percent."""
    number = _number(value, ".4g", about)
    if not _known(value) or not _known(half_width) or value == 0:
        return number
    percent = 100 * half_width / value
    return f"{number} ±{percent:.0f}%" if percent >= 10 else f"{number} ±{percent:.2g}%"


def _number(value: float, style: str, about: str = "") -> str:
    return about + format(value, style) if _known(value) else "-"


def _known(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
