"""G at any numbers of inferences (MUI) that a user names: rows for results/by_mui.csv, and cells for the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.energy.judge.reading import is_estimate
from benchmark.report.columns import column
from benchmark.report.greeness import TAU, Uncertain, greeness, greeness_ci95
from benchmark.report.summary import SummaryRow, kind_of_rivals, ranks_by
from benchmark.report.turns import cycle_of


@dataclass(frozen=True)
class MuiRow:
    """A row for each experiment and each number of inferences that was asked for (`report mui=1e7,5e8`)."""

    experiment: str = column("", "name of the experiment, as in summary.csv")
    method: str = column("", "the method")
    model: str = column("", "the network that is deployed")
    settings: str = column("", "the settings in which it differs from others that share the rest")
    mui: float = column("", "the number of inferences (MUI)")
    tau: float = column("", "exponent of accuracy in G")
    g: float = column("percent^tau per W.h", "Greeness at mui; empty where an input is unknown")
    g_ci95: float = column("percent^tau per W.h", "half-width of the 95 % interval of g")
    rank: str = column("", "rank among rivals by g; a range such as 1-3 is a tie")
    spent_wh: float = column("W.h", "energy of the whole life: TEC and mui inferences")
    grade: str = column("", "how far to trust the energy, as in summary.csv: E is an estimate, no measurement")
    energy_source: str = column("", "the meter, as in summary.csv")


def by_mui(summary: Sequence[SummaryRow], muis: Sequence[float], tau: float = TAU) -> list[MuiRow]:
    """G of every row at every MUI: all rows at the first, then at the second, and so on.

    Ranks are among rivals at that MUI. With one seed the spread between seeds is in no interval.
    """
    found = []
    for mui in muis:
        each = [_g(row, mui, tau) for row in summary]
        ranks = ranks_by(summary, each)
        found += [_row(row, mui, tau, g, rank) for row, g, rank in zip(summary, each, ranks, strict=True)]
    return found


def cells(summary: Sequence[SummaryRow], muis: Sequence[float], tau: float = TAU) -> list[dict[str, str]]:
    """For each row of the summary what a table shows of it at every MUI, by heading ('G(10M)'); '~' marks an estimate,
    '-' what is unknown."""
    found: list[dict[str, str]] = [{} for _ in summary]
    for number, row in enumerate(by_mui(summary, muis, tau)):
        about = "~" if row.grade == "E" or is_estimate(row.energy_source) else ""
        told = "-" if math.isnan(row.g) else f"{about}{row.g:.4g}"
        found[number % len(summary)][heading(row.mui)] = told
        found[number % len(summary)][heading(row.mui, "rank")] = row.rank or "-"
    return found


def best_first(summary: Sequence[SummaryRow], mui: float) -> list[SummaryRow]:
    """The rows by their G at an MUI, the highest first; rivals stay together, and unknown G come last among them."""
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(map(kind_of_rivals, summary)))}

    def place(row: SummaryRow) -> tuple[int, float, str]:
        g = _g(row, mui, row.tau).value
        return kinds[kind_of_rivals(row)], math.inf if math.isnan(g) else -g, row.experiment

    return sorted(summary, key=place)


def heading(mui: float, what: str = "G") -> str:
    """The heading of a column of G, or of ranks by it: G(10M), rank(10M) at ten million inferences."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if mui >= size:
            return f"{what}({mui / size:.12g}{unit})"
    return f"{what}({mui:.12g})"


def _row(row: SummaryRow, mui: float, tau: float, g: Uncertain, rank: str) -> MuiRow:
    return MuiRow(
        experiment=row.experiment,
        method=row.method,
        model=row.model,
        settings=row.settings,
        mui=mui,
        tau=tau,
        g=g.value,
        g_ci95=g.half_width,
        rank=rank,
        spent_wh=row.tec_wh + mui * row.iec_wh,
        grade=row.grade,
        energy_source=row.energy_source,
    )


def _g(row: SummaryRow, mui: float, tau: float) -> Uncertain:
    """G and the half-width of its interval; NaN where nothing is known, or nothing was spent."""
    accuracy, tec, iec = cycle_of(row)
    if tec.value + mui * iec.value == 0:
        return Uncertain(math.nan, math.nan)
    return Uncertain(
        greeness(accuracy.value, tec.value, iec.value, mui, tau), greeness_ci95(accuracy, tec, iec, mui, tau)
    )
