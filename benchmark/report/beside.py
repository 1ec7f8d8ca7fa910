"""The paper's tables with ours beside them: Tables 3 and 5, Table 4, the published accuracies of distillation; and TEC
by both of the conventions that the paper leaves open."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.energy.judge.reading import is_estimate
from benchmark.plan.run_file import RunFile
from benchmark.records.book import Book
from benchmark.report.command import as_published
from benchmark.report.greeness import greeness, rank_ranges
from benchmark.report.laid import Laid, beside, number
from benchmark.report.paper import paper_rows
from benchmark.report.reproduction import Pair, our_names, pair_up, table, verdict
from benchmark.report.rows import AFTER, StageRow
from benchmark.report.summary import SummaryRow

TABLE_4 = ("distillation/kd", "repdistiller/wrn_40_2", "repdistiller/wrn_16_2")
"""Method, teacher and student of the paper's Table 4."""

LONG_EPOCHS = 160
"""Epochs of fine-tuning that the paper's text names; the energies it prints are those of about 20."""


def beside_paper(folder: Path, book: Book, stages: Sequence[StageRow], summary: Sequence[SummaryRow]) -> list[Laid]:
    """Every table that `folder` holds of the paper, each row with ours where there is one, and why not where there is
    none. Raises UserError where the folder holds no such table."""
    rows = paper_rows(folder / "paper_tables.csv")
    pairs = pair_up(rows, our_names(folder / "ours.csv"), book, summary)
    return [
        _table_3(pairs),
        _table_4(folder / "paper_tables.csv", book, stages),
        _distillation(folder / "distillation_published.csv", book, summary),
        _conventions(book, summary),
    ]


def _table_3(pairs: Sequence[Pair]) -> Laid:
    raw, judged = table(pairs), verdict(pairs)
    for name in ("g_500m", "g_1b"):
        raw[f"{name}_rank_paper"] = [str(ranks) for ranks in _places(raw[f"{name}_paper"])]
        raw[f"{name}_rank_ours"] = _ranges(raw[f"{name}_ours"], raw[f"{name}_ci95"])
    have = int(raw["g_1b_ours"].notna().sum())
    cells = [
        {
            "row": str(line["row"]),
            **{head: beside(line[f"{name}_ours"], line[f"{name}_paper"], style) for head, name, style in HEADS},
            "rank(1B)": _of_all(line["g_1b_rank_ours"], have) + f" ({line['g_1b_rank_paper']} of {len(raw)})",
            "n": str(line["n_seeds"]),
            "grade": str(line["grade"]) or "-",
        }
        for line in raw.to_dict("records")
    ]
    notes = [
        "ours, and in brackets the paper's and how far ours lies from it; G at the paper's tau of 2",
        *judged.lines,
    ]
    return Laid("against_paper", raw, cells, notes)


HEADS = (
    ("acc %", "acc_pct", ".2f"), ("TEC W.h", "tec_wh", ".4g"), ("IEC W.h", "iec_wh", ".3g"),
    ("G(500M)", "g_500m", ".3g"), ("G(1B)", "g_1b", ".3g"),
)  # fmt: skip  # heading, column, style


def _of_all(rank: str, have: int) -> str:
    return f"{rank} of {have}" if rank else "-"


def _places(values: pd.Series[float]) -> list[int]:
    return [int(place) for place in values.rank(ascending=False, method="min")]


def _ranges(values: pd.Series[float], half_widths: pd.Series[float]) -> list[str]:
    """Ranks among the rows that we have, as ranges where intervals tie; '' where a row is missing."""
    found = rank_ranges(list(values), list(half_widths))
    return [
        "" if each is None else str(each.best) if each.best == each.worst else f"{each.best}-{each.worst}"
        for each in found
    ]


# --- Table 4 ---------------------------------------------------------------------------------------------------------


PRINTED = ("gpu_util_pct", "mem_util_pct", "avg_power_w", "time_s", "energy_wh", "energy_wh_from_power_x_time")
"""Columns of the paper's table, in the order of a board's numbers."""


@dataclass(frozen=True)
class Board:
    """What one epoch of distillation took on a board."""

    gpu: str
    source: str
    gpu_util_pct: float
    mem_util_pct: float
    mean_power_w: float
    seconds: float
    energy_wh: float
    power_x_time_wh: float


def _table_4(path: Path, book: Book, stages: Sequence[StageRow]) -> Laid:
    one_epoch = {run.experiment for run in book.runs if run.settings.get("recipe.epochs") == "1"}
    boards = [*_papers_boards(path), *_our_boards([row for row in stages if row.experiment in one_epoch])]
    cells = [
        {
            "GPU": board.gpu, "source": board.source, "GPU use %": number(board.gpu_util_pct),
            "memory use %": number(board.mem_util_pct), "power W": number(board.mean_power_w),
            "time s": number(board.seconds), "energy W.h": number(board.energy_wh),
            "power x time W.h": number(board.power_x_time_wh),
        }
        for board in boards
    ]  # fmt: skip  # one value a line would hide the row
    ours = len(boards) - 3
    notes = [
        "one epoch of KD, WRN-40-2 to WRN-16-2",
        "the paper's energies are not its mean power times its time, and cannot be used as a target",
        f"{ours} board(s) of ours" if ours else "n/a for ours: study experiment=sensitivity/gpu needs a GPU's meters",
    ]
    return Laid("table4", pd.DataFrame([asdict(board) for board in boards]), cells, notes)


def _papers_boards(path: Path) -> Iterator[Board]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["table"] == "4":
                names = (
                    "gpu_util_pct",
                    "mem_util_pct",
                    "avg_power_w",
                    "time_s",
                    "energy_wh",
                    "energy_wh_from_power_x_time",
                )
                yield Board(row["gpu"], "the paper", *(float(row[name]) for name in names))


def _our_boards(stages: Sequence[StageRow]) -> Iterator[Board]:
    seen: set[tuple[str, str]] = set()
    for row in stages:
        same = (row.method, row.teacher, row.model) == TABLE_4 and row.stage == "distil" and row.scale == "full"
        if same and not math.isnan(row.gpu_util_pct) and (row.machine, row.key) not in seen:
            seen.add((row.machine, row.key))
            power_x_time_wh = row.mean_power_w * row.seconds / 3600
            source, use = f"ours, {row.energy_source}, grade {row.grade}", (row.gpu_util_pct, row.mem_util_pct)
            yield Board(row.device_name, source, *use, row.mean_power_w, row.seconds, row.energy_wh, power_x_time_wh)


# --- published accuracies --------------------------------------------------------------------------------------------


def _distillation(path: Path, book: Book, summary: Sequence[SummaryRow]) -> Laid:
    """A line for each pair and method that a source published, with ours at full scale beside it."""
    plain = {run.experiment for run in book.runs if as_published(run)}
    whole = sorted((row for row in summary if _whole(row) and row.experiment in plain), key=lambda row: row.n_seeds)
    own = {_pair_of(row): row for row in whole if row.teacher and AFTER not in row.method}
    alone = {row.model: row for row in whole if row.method == "baseline"}
    lines: list[dict[str, Any]] = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            networks = dict(zip(("teacher", "student"), row["pair"].split("__"), strict=True))
            by_itself = alone.get(f"repdistiller/{networks.get(row['method'])}")
            found = by_itself if row["method"] in networks else own.get((row["pair"], row["method"]))
            published = float(row["acc_pct"] or "nan")  # FSP is impossible for some pairs
            ours = math.nan if found is None else found.acc_pct
            lines.append(
                {
                    "pair": row["pair"],
                    "method": row["method"],
                    "source": row["source"],
                    "acc_pct_published": published,
                    "acc_pct_ours": ours,
                    "points": ours - published,
                    "acc_ci95_pct": math.nan if found is None else found.acc_ci95_pct,
                    "n_seeds": 0 if found is None else found.n_seeds,
                    "experiment": "" if found is None else found.experiment,
                }
            )
    cells = [
        {
            "pair": line["pair"], "method": line["method"], "published %": number(line["acc_pct_published"], ".2f"),
            "ours %": number(line["acc_pct_ours"], ".2f"), "points apart": number(line["points"], "+.2f"),
            "n": str(line["n_seeds"]), "source": line["source"],
        }
        for line in lines
    ]  # fmt: skip
    have = sum(not math.isnan(line["acc_pct_ours"]) for line in lines)
    return Laid(
        "distillation_published",
        pd.DataFrame(lines),
        cells,
        [f"{have} of {len(lines)} published accuracies have one of ours beside them"],
    )


def _whole(row: SummaryRow) -> bool:
    """Whether a row is of whole data, in fp32 and by our fast profile: published accuracies are those of fp32."""
    as_wide = row.scale == "full" and row.data == "cifar100" and bool(row.n_seeds)
    return as_wide and row.deploy_precision == "fp32" and row.profile == "fast"


def _pair_of(row: SummaryRow) -> tuple[str, str]:
    teacher, student = (name.rpartition("/")[2] for name in (row.teacher, row.model))
    return f"{teacher}__{student}", row.method.removeprefix("distillation/")


# --- conventions -----------------------------------------------------------------------------------------------------


def _conventions(book: Book, summary: Sequence[SummaryRow]) -> Laid:
    """TEC with and without the teacher's training, and by the 160 epochs of fine-tuning of the paper's text."""
    runs = {run.experiment: run for run in book.runs}
    raw = [line for row in summary if row.n_seeds for line in _by_convention(row, runs.get(row.experiment))]
    cells = [
        {
            "method": line["method"], "model": line["model"], "convention": line["convention"],
            **{head: number(line[name], ".4g", line["about"]) for head, name in CONVENTION_HEADS},
        }
        for line in raw
    ]  # fmt: skip
    notes = [
        "without the teacher: TEC of a user who has a trained teacher already",
        f"{LONG_EPOCHS} epochs: computed from the energy of an epoch of fine-tuning, with the accuracy of the shorter "
        "life; the paper's text says 160, and its energies fit 20",
        "~ estimated, not measured",
    ]
    return Laid("conventions", pd.DataFrame(raw).drop(columns="about", errors="ignore"), cells, notes)


CONVENTION_HEADS = (("TEC W.h", "tec_wh"), ("G(500M)", "g_500m"), ("G(1B)", "g_1b"))


def _by_convention(row: SummaryRow, run: RunFile | None) -> Iterator[dict[str, Any]]:
    if AFTER in row.method:  # its phases hold those of two methods
        return
    family = row.method.partition("/")[0]
    if family == "distillation":
        yield _line(row, "with the teacher's training", row.tec_wh)
        yield _line(row, "without the teacher's training", row.tec_wh - row.base_wh)
    epochs = 0.0 if run is None else _epochs(run)
    if family == "pruning" and epochs:
        yield _line(row, f"{epochs:g} epoch(s) of fine-tuning, as run", row.tec_wh)
        if epochs != LONG_EPOCHS:
            longer = row.tec_wh + row.retrain_wh * (LONG_EPOCHS / epochs - 1)
            yield _line(row, f"{LONG_EPOCHS} epochs of fine-tuning, computed", longer)


def _epochs(run: RunFile) -> float:
    """Epochs of a one-shot pruner's fine-tuning, as run; 0 where they are not known, or are not all in that stage."""
    settings: Mapping[str, str] = run.settings
    if settings.get("method.schedule") != "one_shot":
        return 0.0
    try:
        asked = float(settings["method.finetune_epochs"])
    except (KeyError, ValueError):
        return 0.0
    most = math.inf if run.words.max_epochs is None else run.words.max_epochs
    return min(asked, most) if asked > 0 else 0.0


def _line(row: SummaryRow, convention: str, tec_wh: float) -> dict[str, Any]:
    tec_wh = max(tec_wh, 0.0)  # rounding can leave a difference just below nothing
    g = {
        name: greeness(row.acc_pct, tec_wh, row.iec_wh, mui, row.tau) for name, mui in (("g_500m", 5e8), ("g_1b", 1e9))
    }
    model = row.model if not row.teacher else f"{row.teacher} -> {row.model}"
    known = {"experiment": row.experiment, "method": row.method, "model": model, "convention": convention}
    about = "~" if row.grade == "E" or is_estimate(row.energy_source) else ""
    return {**known, "tec_wh": tec_wh, **g, "grade": row.grade, "tau": row.tau, "about": about}
