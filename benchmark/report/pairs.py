"""Where each pair of rivals has equal G, with its interval; and who is best at how many inferences, as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pandas as pd

from benchmark.report.crossovers import Crossover, Cycle, crossover
from benchmark.report.greeness import TAU, Uncertain
from benchmark.report.laid import Laid, number
from benchmark.report.paper import PaperRow
from benchmark.report.summary import RIVALS, SummaryRow
from benchmark.report.turns import cycle_of, reigns, sentence

MOST_ROWS = 60
"""Rows of one group whose pairs are all listed: their number grows with the square."""

Group = tuple[str, dict[str, Cycle]]


def pairs(summary: Sequence[SummaryRow], paper: Sequence[PaperRow], tau: float = TAU) -> Laid:
    """Raw: a line for each pair that crosses. For readers: only where the best row changes, the sentences below."""
    groups = [*_ours(summary), *_of_paper(paper)]
    raw = [line for name, cycles in groups if len(cycles) <= MOST_ROWS for line in _of_group(name, cycles, tau)]
    cells = [cell for name, cycles in groups for cell in _changes(name, cycles, tau)]
    notes = [f"{name}: {sentence(reigns(cycles, tau))}" for name, cycles in groups if cycles]
    notes += [
        f"{name}: its {len(cycles)} rows are too many to list every pair"
        for name, cycles in groups
        if len(cycles) > MOST_ROWS
    ]
    notes.append(f"tau = {tau:g}; intervals are 95 % (Fieller); with one seed the spread between seeds is in none")
    return Laid("crossovers", pd.DataFrame(raw), cells, notes)


def _ours(summary: Sequence[SummaryRow]) -> Iterator[Group]:
    found: dict[tuple[str, ...], dict[str, Cycle]] = {}
    for row in summary:
        cycle = cycle_of(row)
        if row.n_seeds and not any(math.isnan(each.value) for each in cycle):
            rivals = tuple(str(getattr(row, name)) for name in RIVALS)
            found.setdefault(rivals, {})[_name(row)] = cycle
    for rivals, cycles in found.items():
        told = dict(zip(RIVALS, rivals, strict=True))
        yield f"{told['data']}, {told['infer_machine']}, {told['engine']}, {told['profile']}", cycles


def _name(row: SummaryRow) -> str:
    about = "~" if row.grade == "E" else ""
    model = row.model if not row.teacher else f"{row.teacher} -> {row.model}"
    return f"{about}{row.method} on {model}" + (f" ({row.settings})" if row.settings else "")


def _of_paper(rows: Sequence[PaperRow]) -> Iterator[Group]:
    def cycle(row: PaperRow) -> Cycle:
        return Cycle(*(Uncertain(value, math.nan) for value in (row.acc_pct, row.tec_wh, row.iec_wh)))

    if rows:
        yield "the paper's own table", {row.name: cycle(row) for row in rows}


def _of_group(name: str, cycles: dict[str, Cycle], tau: float) -> Iterator[dict[str, object]]:
    for one, other in combinations(cycles, 2):
        found = crossover(cycles[one], cycles[other], tau)
        if not math.isnan(found.mui):
            yield {"group": name, "one": one, "other": other, **found._asdict(), "tau": tau}


def _changes(name: str, cycles: dict[str, Cycle], tau: float) -> Iterator[dict[str, str]]:
    for before, after in pairwise(reigns(cycles, tau)):
        at = crossover(cycles[before.name], cycles[after.name], tau)
        yield {
            "group": name,
            "from (MUI)": number(at.mui),
            "95 %": _interval(at),
            "best": after.name,
            "before": before.name,
        }


def _interval(at: Crossover) -> str:
    if math.isnan(at.low):
        return "-"
    return f"{number(at.low)} to {'no end' if math.isinf(at.high) else number(at.high)}"
