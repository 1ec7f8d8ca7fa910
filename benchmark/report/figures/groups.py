"""Which rows a figure shows, what it calls them, and what its caption says about where they come from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmark.energy.judge.reading import is_estimate
from benchmark.report.crossovers import Cycle
from benchmark.report.figures.style import COLOURS, shown
from benchmark.report.rows import StageRow, short_method
from benchmark.report.summary import RIVALS, SummaryRow
from benchmark.report.turns import cycle_of

MOST_GROUPS = 3
"""So many groups of rivals have figures, the largest first."""
MOST_CURVES = len(COLOURS)
"""More curves than colours cannot be told apart."""
BY_MUI = 1e9
"""The number of inferences at which the best of many are chosen."""

LEAST_WH, MOST_WH, LEAST_PCT = 1e-15, 1e12, 1e-3
"""Less than one operation takes, a terawatt-hour, one right answer in 100,000: beyond these a row is absurd."""

NOTHING = "n/a: no row has a complete seed"


class Named(NamedTuple):
    """A row with what a figure calls it, and what G needs of it."""

    name: str
    row: SummaryRow
    cycle: Cycle


class Group(NamedTuple):
    """Rivals: rows that may be compared with each other. `source` is the end of a caption about any of them."""

    rows: list[Named]
    source: str


def groups(summary: Sequence[SummaryRow]) -> list[Group]:
    """The largest groups of rivals among the rows with a complete seed whose G is known, the largest first."""
    return [Group(_named(rows), source(rows)) for rows in _rivals(summary)[:MOST_GROUPS]]


def left_out(summary: Sequence[SummaryRow]) -> str:
    """What the figures of groups leave out, and why; empty where they show all."""
    others = _rivals(summary)[MOST_GROUPS:]
    rows = sum(map(len, others))
    return f"n/a: {len(others)} smaller group(s) of rivals, {rows} row(s) in all: the page shows them" if others else ""


def _rivals(summary: Sequence[SummaryRow]) -> list[list[SummaryRow]]:
    by_words: dict[tuple[str, ...], list[SummaryRow]] = {}
    for row in summary:
        if _drawable(row):
            by_words.setdefault(tuple(str(getattr(row, name)) for name in RIVALS), []).append(row)
    return [rows for _, rows in sorted(by_words.items(), key=lambda item: (-len(item[1]), item[0]))]


def _drawable(row: SummaryRow) -> bool:
    """Whether G of a row is a number above zero that an axis has room for: one absurd row would spoil its rivals'."""
    energies = (row.tec_wh, row.iec_wh)
    known = row.n_seeds > 0 and all(0 <= energy < MOST_WH for energy in energies)  # false of NaN, too
    return known and LEAST_PCT <= row.acc_pct <= 100 and max(energies) > LEAST_WH


def _named(rows: Sequence[SummaryRow]) -> list[Named]:
    words = [_words(row) for row in rows]
    uses = Counter(words)
    pairs = zip(words, rows, strict=True)
    apart = [name if uses[name] == 1 else f"{name} {row.settings}".strip() for name, row in pairs]
    uses = Counter(apart)
    found = []
    for name, row in zip(apart, rows, strict=True):
        own = name if uses[name] == 1 else f"{name} {row.experiment[-8:]}"  # its digest: nothing else tells them apart
        found.append(Named(f"{'~' if estimated(row) else ''}{shown(own)}", row, _cycle(row)))
    return found


def _words(row: SummaryRow) -> str:
    """A row in few words: the families are told by the figure, or by the method's own name."""
    last = row.model.rpartition("/")[2]
    network = f"{row.teacher.rpartition('/')[2]}→{last}" if row.teacher else last
    return f"{short_method(row.method)} {network}"


def _cycle(row: SummaryRow) -> Cycle:
    """An interval without end is drawn as an unknown one."""
    own = cycle_of(row)
    return Cycle(*(each if 0 <= each.half_width < MOST_WH else each._replace(half_width=math.nan) for each in own))


def estimated(row: SummaryRow | StageRow) -> bool:
    """Whether some of a row's energy is an estimate."""
    return row.grade == "E" or is_estimate(row.energy_source)


def family(row: SummaryRow) -> str:
    """The family of a row's method: the folder of its file."""
    return row.method.partition("/")[0]


def source(rows: Sequence[SummaryRow]) -> str:
    """Where rows come from: machines, seeds, grades, scale; and that an estimate is one."""
    seeds = sorted({int(row.n_seeds) for row in rows})
    where = "" if seeds[-1] == 1 else "where n = 1, "
    spread = f"; {where}the spread between seeds is in no interval" if seeds[0] == 1 else ""
    data = ", ".join(sorted({row.data for row in rows}))
    n = f"n = {_range(seeds)} seed{'' if seeds[-1] == 1 else 's'}{spread}"
    scales = sorted({row.scale for row in rows} - {"full", ""})
    small = f" Scale {', '.join(scales)}: it says nothing about a method." if scales else ""
    machines = [row.train_machine for row in rows] + [row.infer_machine for row in rows]
    return f"{_told(machines, rows)}, {data}; {n}.{small}"


def source_of_stages(rows: Sequence[StageRow]) -> str:
    """Where rows of stages come from: machines and grades; and that an estimate is one."""
    return f"{_told([row.machine for row in rows], rows)}."


def _told(machines: Iterable[str], rows: Sequence[SummaryRow] | Sequence[StageRow]) -> str:
    own = ", ".join(shown(machine, 40) for machine in sorted(set(machines) - {""}))
    grades = ", ".join(sorted({row.grade for row in rows}))
    if not any(estimated(row) for row in rows):
        return f"Source: records of {own}, {'grades' if ',' in grades else 'grade'} {grades}"
    what = "estimate (grade E), not measured" if grades == "E" else f"grades {grades}; ~: estimate (grade E)"
    return f"Source: records of {own}, {what}"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
