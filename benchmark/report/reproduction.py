"""The paper's rows beside ours: which of ours stands for which, how far they are apart, and the verdict."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmark.records.book import Book
from benchmark.report.greeness import TAU, greeness
from benchmark.report.paper import PaperRow
from benchmark.report.summary import SummaryRow

POINTS = 1.0
"""Points of accuracy that a reproduced row may lie from the paper's."""
LEAST_TAU = 0.8
"""The least rank agreement (Kendall's tau-b) with the paper on G that counts as reproduced."""
PAPERS = ("group", "model_or_pair", "search_dataset", "method")
"""The columns of results/paper/ours.csv that name a row of the paper."""
Names = Mapping[tuple[str, ...], Mapping[str, str]]


class Pair(NamedTuple):
    """A row of the paper, and ours: None, with the reason, where there is none that can be compared."""

    paper: PaperRow
    row: SummaryRow | None
    why: str


def our_names(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """What ours is called for each row of the paper: method, teacher, model and data of the search, by `_id`."""
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[name] for name in PAPERS): row for row in csv.DictReader(file)}


def pair_up(rows: Sequence[PaperRow], names: Names, book: Book, summary: Sequence[SummaryRow]) -> list[Pair]:
    """Each row of the paper that has one of ours, with it: of whole data, measured; of several the one with most
    seeds."""
    searched = {run.experiment: run.settings.get("data.search", "") for run in book.runs}
    return [
        _paired(row, [each for each in summary if _is(each, names[_id(row)], searched)])
        for row in rows
        if _id(row) in names
    ]


def _paired(paper: PaperRow, found: Sequence[SummaryRow]) -> Pair:
    if not found:
        return Pair(paper, None, "it was not run")
    whole = [row for row in found if row.scale == "full" and row.profile == "fast"]
    if not whole:
        return Pair(paper, None, f"it was run at scale={found[0].scale}, profile={found[0].profile} alone")
    complete = [row for row in whole if row.n_seeds and not math.isnan(row.g_1b)]
    if not complete:
        return Pair(paper, None, f"it is not complete: {whole[0].missing or 'its energy is unknown'}")
    measured = [row for row in complete if row.grade not in ("E", "X")]
    if not measured:
        return Pair(paper, None, f"its energy is not measured (grade {complete[0].grade})")
    return Pair(paper, max(measured, key=lambda row: (row.n_seeds, row.experiment)), "")


def _is(row: SummaryRow, ours: Mapping[str, str], searched: Mapping[str, str]) -> bool:
    same = (row.method, row.teacher, row.model) == (ours["our_method"], ours["our_teacher"], ours["our_model"])
    return same and row.data == "cifar100" and ours["our_search"] in ("", searched.get(row.experiment))


def table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Ours beside the paper's: accuracy, TEC, IEC and G, each with the absolute and the relative difference."""
    lines = []
    for paper, row, why in pairs:
        line: dict[str, object] = {"group": paper.family, "row": paper.name, "why_not": why}
        values = {"acc_pct": paper.acc_pct, "tec_wh": paper.tec_wh, "iec_wh": paper.iec_wh,
                  "g_500m": paper.g(5e8), "g_1b": paper.g(1e9)}  # fmt: skip
        for name, theirs in values.items():
            own = _own(row, name)
            line |= {f"{name}_paper": theirs, f"{name}_ours": own, f"{name}_difference": own - theirs,
                     f"{name}_relative": own / theirs - 1}  # fmt: skip
            line[f"{name}_ci95"] = math.nan if row is None else _half_width(row, name)
        line |= {"n_seeds": row.n_seeds if row else 0, "grade": row.grade if row else "",
                 "train_machine": row.train_machine if row else "", "infer_machine": row.infer_machine if row else "",
                 "experiment": row.experiment if row else ""}  # fmt: skip
        lines.append(line)
    return pd.DataFrame(lines)


def _own(row: SummaryRow | None, name: str) -> float:
    if row is None:
        return math.nan
    if name in ("g_500m", "g_1b"):  # at the paper's tau, whatever the report's
        return greeness(row.acc_pct, row.tec_wh, row.iec_wh, 5e8 if name == "g_500m" else 1e9, TAU)
    return float(getattr(row, name))


def _half_width(row: SummaryRow, name: str) -> float:
    known = {"acc_pct": "acc_ci95_pct", "tec_wh": "tec_ci95_wh", "iec_wh": "iec_ci95_wh"}
    same_tau = row.tau == TAU
    return float(getattr(row, known.get(name, f"{name}_ci95"))) if name in known or same_tau else math.nan


class Verdict(NamedTuple):
    """Whether Table 3 is reproduced, and every reason for and against, a line each."""

    reproduced: bool
    lines: list[str]


def verdict(pairs: Sequence[Pair]) -> Verdict:
    """Reproduced: every row is there, accuracies lie within a point of the paper's, and the ranks by G agree."""
    lines, compared = list(_of_rows(pairs)), table(pairs).dropna(subset=["g_1b_ours"])
    missing, apart = sum(pair.row is None for pair in pairs), sum("points from it" in line for line in lines)
    agreed = True
    for name, words in (("g_500m", "G(500M)"), ("g_1b", "G(1B)")):
        value = _agreement(compared, name)
        agreed &= value >= LEAST_TAU
        lines.append(
            f"rank agreement with the paper on {words}: Kendall's tau {value:.3f} over {len(compared)} rows "
            f"(at least {LEAST_TAU:g} wanted)"
        )
        for group, own in compared.groupby("group"):
            if len(own) > 2:
                lines.append(f"  within {group}: {_agreement(own, name):.3f} over {len(own)} rows")
    machines = {(pair.row.train_machine, pair.row.infer_machine) for pair in pairs if pair.row}
    if len(machines) > 1:
        lines.append(f"rows of {len(machines)} machines are mixed: their energies cannot be ranked together")
    done = not missing and not apart and agreed and len(machines) == 1
    told = "reproduced" if done else f"NOT reproduced: {_because(missing, apart, agreed)}"
    return Verdict(done, [f"Table 3 is {told}", *lines])


def _agreement(rows: pd.DataFrame, name: str) -> float:
    """Kendall's tau-b between our values and the paper's; NaN for fewer than two rows."""
    if len(rows) < 2:
        return math.nan
    return float(rows[f"{name}_ours"].corr(rows[f"{name}_paper"], method="kendall"))


def _because(missing: int, apart: int, agreed: bool) -> str:
    reasons = [f"{missing} rows are missing" if missing else "", f"{apart} accuracies are too far" if apart else "",
               "" if agreed else "the ranks do not agree, or cannot be compared"]  # fmt: skip
    return ", ".join(filter(None, reasons)) or "rows of several machines"


def _of_rows(pairs: Sequence[Pair]) -> Iterator[str]:
    for paper, row, why in pairs:
        if row is None:
            yield f"{paper.name}: missing, because {why}"
            continue
        apart = row.acc_pct - paper.acc_pct
        far = f", {apart:+.2f} points from it" if abs(apart) > POINTS else ""
        n = f"n = {row.n_seeds}, grade {row.grade}"
        yield f"{paper.name}: accuracy {row.acc_pct:.2f} %, in the paper {paper.acc_pct} %{far}, {n}"


def _id(row: PaperRow) -> tuple[str, ...]:
    return row.family, row.model, row.search, row.method
