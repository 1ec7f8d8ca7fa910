"""The paper's rows beside ours: which of ours stands for which, how far they are apart, and the verdict."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmark.records.book import Book
from benchmark.report.greeness import greeness
from benchmark.report.summary import SummaryRow

POINTS = 1.0
"""Points of accuracy that a reproduced row may lie from the paper's."""
LEAST_TAU = 0.8
"""The least rank agreement (Kendall's tau-b) with the paper on G that counts as reproduced."""
TAU = 2.0


class PaperRow(NamedTuple):
    """A row of the paper's Table 3 or, where that has none, of Table 5, and what ours is called."""

    group: str
    name: str
    tec_wh: float
    acc_pct: float
    iec_wh: float
    ours: Mapping[str, str]

    def g(self, mui: float) -> float:
        """Greeness, from the row's own numbers."""
        return greeness(self.acc_pct, self.tec_wh, self.iec_wh, mui, TAU)


class Pair(NamedTuple):
    """A row of the paper, and ours: None, with the reason, where there is none that can be compared."""

    paper: PaperRow
    row: SummaryRow | None
    why: str


def paper_rows(folder: Path) -> list[PaperRow]:
    """The paper's 19 rows; IEC as Table 5 prints it, which has more digits."""
    names = {_id(each): each for each in _read(folder / "ours.csv")}
    found: dict[tuple[str, ...], PaperRow] = {}
    for each in _read(folder / "paper_tables.csv"):  # Table 3 comes first; Table 5 adds digits, and two rows
        if each["table"] not in ("3", "5") or _id(each) not in names:
            continue
        name = f"{each['method']} {each['model_or_pair']} {each['search_dataset']}".strip()
        tec_wh, acc_pct, iec_wh = (float(each[column]) for column in ("tec_wh", "acc_pct", "iec_wh"))
        found[_id(each)] = PaperRow(each["group"], name, tec_wh, acc_pct, iec_wh, names[_id(each)])
    return list(found.values())


def pair_up(rows: Sequence[PaperRow], book: Book, summary: Sequence[SummaryRow]) -> list[Pair]:
    """Each row of the paper with ours: of whole data, measured, on one machine; of several the one with most seeds."""
    searched = {run.experiment: run.settings.get("data.search", "") for run in book.runs}
    return [_paired(row, [each for each in summary if _is(each, row, searched)]) for row in rows]


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


def _is(row: SummaryRow, paper: PaperRow, searched: Mapping[str, str]) -> bool:
    ours = paper.ours
    same = (row.method, row.teacher, row.model) == (ours["our_method"], ours["our_teacher"], ours["our_model"])
    return same and row.data == "cifar100" and ours["our_search"] in ("", searched.get(row.experiment))


def table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Ours beside the paper's: accuracy, TEC, IEC and G, each with the absolute and the relative difference."""
    lines = []
    for paper, row, why in pairs:
        line: dict[str, object] = {"group": paper.group, "row": paper.name, "why_not": why}
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


def _id(each: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(each[name] for name in ("group", "model_or_pair", "search_dataset", "method"))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
