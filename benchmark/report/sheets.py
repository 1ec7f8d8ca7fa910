"""A summary as sheets for readers: what rows share is said above a table, and what they do not share in its columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmark.energy.judge.reading import is_estimate
from benchmark.report.laid import MJ_PER_WH, number
from benchmark.report.markup import Cells
from benchmark.report.summary import SummaryRow

TITLE = {
    "data": ("data", "classes", "train_images", "test_images", "scale", "max_epochs"),
    "training": ("recipe", "profile", "train_precision", "train_machine"),
    "inference": ("engine", "engine_version", "deploy_precision", "infer_machine"),
}
"""What rows of one table usually share: said above it, a line each; where rows differ in it, it is a column. Rows that
differ in the first line stand in tables of their own."""

SETTING = tuple(name for part in TITLE.values() for name in part)

LABELS = {
    "train_precision": "train {}", "deploy_precision": "deploy {}", "classes": "{} classes", "recipe": "recipe {}",
    "train_images": "{} training images", "test_images": "{} test images", "scale": "scale {}",
    "max_epochs": "epoch limit {:g}", "profile": "profile {}", "engine_version": "version {}",
    "train_machine": "on {}", "infer_machine": "on {}",
}  # fmt: skip  # one value a line would hide the shape
"""How a value is said in a title."""


class Sheet(NamedTuple):
    """A table for readers: lines on what its rows share; the headings of the words that tell rows apart; every row's
    cells by heading, words first; and each row's words in one cell, for where there is no room for columns."""

    title: list[str]
    words: list[str]
    rows: list[Cells]
    joined: list[str]


def sheets(summary: Sequence[SummaryRow], more: Sequence[Cells] = ()) -> list[Sheet]:
    """The rows of a summary, those on the same data in one sheet, in their order. `more` are further cells for each."""
    alike: dict[tuple[str, ...], list[tuple[SummaryRow, Cells]]] = {}
    for row, further in zip(summary, more or [{}] * len(summary), strict=True):
        alike.setdefault(kind_of_data(row), []).append((row, further))
    return [_sheet([row for row, _ in own], [further for _, further in own]) for own in alike.values()]


def kind_of_data(row: SummaryRow) -> tuple[str, ...]:
    """What the rows of one table share: the data and how much of them, in words."""
    return tuple(said(name, row) for name in TITLE["data"])


def _sheet(rows: Sequence[SummaryRow], more: Sequence[Cells]) -> Sheet:
    varied = [name for name in SETTING if len({said(name, row) for row in rows}) > 1]
    title = ["Full-cycle energy", *_title(rows[0], varied)]
    varied += ["settings"] if any(row.settings for row in rows) else []
    headings = {name: name.replace("_precision", "") for name in varied}
    cells: list[Cells] = []
    for row, further in zip(rows, more, strict=True):
        about = {"method": row.method, "model": _model(row), **{headings[name]: said(name, row) for name in varied}}
        cells.append({**about, **numbers_of(row), **further})
    joined = [_joined(row, varied) for row in rows]
    return Sheet(title, ["method", "model", *headings.values()], cells, joined)


def _title(row: SummaryRow, varied: Sequence[str]) -> Iterator[str]:
    """What every row of a table has in common with this one, a line for each part of a life."""
    for part, own in TITLE.items():
        common = [name for name in own if name not in varied and said(name, row)]
        if common:
            yield f"{part}: {', '.join(LABELS.get(name, '{}').format(getattr(row, name)) for name in common)}"


def _joined(row: SummaryRow, varied: Sequence[str]) -> str:
    """The words of a row in one cell; numbers with what they count."""
    told = [LABELS.get(name, "{}").replace(":g", "").format(said(name, row)) for name in varied if said(name, row)]
    return " ".join(filter(None, (row.method, _model(row)))) + (f" ({', '.join(told)})" if told else "")


def _model(row: SummaryRow) -> str:
    return row.model if not row.teacher else f"{row.teacher} -> {row.model}"


def said(name: str, row: SummaryRow) -> str:
    """A row's word for a column of `LifeRow`; a number that is not there is none."""
    value = getattr(row, name)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value)


def estimated(row: SummaryRow) -> bool:
    """Whether some of its energy is an estimate, whatever its grade: one of unknown TEC has the grade of that."""
    return row.grade == "E" or is_estimate(row.energy_source)


def numbers_of(row: SummaryRow) -> Mapping[str, str]:
    """A row's numbers as they are printed, by heading."""
    about = "~" if estimated(row) else ""
    return {
        "n": str(row.n_seeds),
        "acc %": number(row.acc_pct, ".2f"),
        "TEC W.h": _with_interval(row.tec_wh, row.tec_ci95_wh, about),
        "IEC mJ": _with_interval(row.iec_wh * MJ_PER_WH, row.iec_ci95_wh * MJ_PER_WH, about),
        "G(500M)": number(row.g_500m, ".4g", about),
        "G(1B)": number(row.g_1b, ".4g", about),
        "rank(1B)": row.rank_1b or "-",
        "grade": row.grade,
    }


def _with_interval(value: float, half_width: float, about: str) -> str:
    """A value with the half-width of its interval in percent."""
    told = number(value, ".4g", about)
    if not math.isfinite(value) or not math.isfinite(half_width) or value == 0:
        return told
    percent = 100 * half_width / value
    return f"{told} ±{percent:.0f}%" if percent >= 10 else f"{told} ±{percent:.2g}%"
