"""Which row is best at which number of inferences (MUI), and from which MUI on a row beats its baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from benchmark.report.crossovers import Crossover, Cycle, crossover
from benchmark.report.greeness import TAU, Uncertain, greeness, greeness_ci95
from benchmark.report.summary import SummaryRow, baseline_of


class Reign(NamedTuple):
    """A range of MUI and the row with the highest G in it."""

    first_mui: float
    last_mui: float
    name: str


class BreakEven(NamedTuple):
    """How a row stands to its baseline: 'always', 'never', 'from', 'below' (wins only below that MUI), 'unclear' or
    'unknown'. It is unclear where one wins always, but nowhere by more than the intervals leave open.

    `at` is the MUI of 'from' and 'below', with its interval, and NaN else.
    """

    kind: str
    at: Crossover


NOWHERE = Crossover(math.nan, math.nan, math.nan)


def reigns(cycles: Mapping[str, Cycle], tau: float = TAU) -> list[Reign]:
    """The best row per range of MUI, from 0 to infinity. Rows with an unknown input take no part."""
    known = {name: cycle for name, cycle in cycles.items() if not any(math.isnan(each.value) for each in cycle)}
    if not known:
        return []
    each = list(known.values())
    turns = {crossover(one, other, tau).mui for number, one in enumerate(each) for other in each[:number]}
    edges = [0.0, *sorted(mui for mui in turns if not math.isnan(mui)), math.inf]
    found: list[Reign] = []
    for first, last in pairwise(edges):
        inside = (first + last) / 2 if math.isfinite(last) else 2 * first + 1
        best = max(known, key=lambda name: _g(known[name], inside, tau))
        if found and found[-1].name == best:
            found[-1] = found[-1]._replace(last_mui=last)
        else:
            found.append(Reign(first, last, best))
    return found


def sentence(ranges: Sequence[Reign]) -> str:
    """Who is best where, as one sentence for a reader."""
    parts = []
    for each in ranges:
        if len(ranges) == 1:
            parts.append(f"at any number of inferences {each.name}")
        elif each.first_mui == 0:
            parts.append(f"up to {_count(each.last_mui)} inferences {each.name}")
        elif math.isinf(each.last_mui):
            parts.append(f"beyond that {each.name}")
        else:
            parts.append(f"from {_count(each.first_mui)} to {_count(each.last_mui)} inferences {each.name}")
    return "; ".join(parts)


def break_even(row: Cycle, baseline: Cycle, tau: float = TAU) -> BreakEven:
    """From which MUI on a row has a higher G than its baseline."""
    if any(math.isnan(each.value) for each in (*row, *baseline)):
        return BreakEven("unknown", NOWHERE)
    at = crossover(row, baseline, tau)
    beyond = 2 * at.mui if at.mui > 0 else 1.0
    wins = _g(row, beyond, tau) > _g(baseline, beyond, tau)
    if math.isnan(at.mui):
        unknown = any(math.isnan(each.half_width) for each in (*row, *baseline))
        clear = unknown or any(_apart(row, baseline, mui, tau) for mui in LIVES)
        return BreakEven(("always" if wins else "never") if clear else "unclear", NOWHERE)
    return BreakEven("from" if wins else "below", at)


LIVES = (0.0, *(10.0**power for power in range(3, 14)))
"""Numbers of inferences at which two rows are looked at."""


def _apart(one: Cycle, other: Cycle, mui: float, tau: float) -> bool:
    """Whether two G differ by more than their intervals leave open, as far as these are known."""
    spread = math.hypot(*(greeness_ci95(*each, mui, tau) for each in (one, other)))
    return not abs(_g(one, mui, tau) - _g(other, mui, tau)) <= spread


def with_break_evens(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows, each with its break-even against its baseline at its own tau. With one seed the spread between seeds is
    in no interval."""
    found = []
    for row in rows:
        baseline = baseline_of(row, rows)
        if baseline is None or baseline is row:
            found.append(row)
            continue
        even = break_even(cycle_of(row), cycle_of(baseline), row.tau)
        found.append(
            replace(
                row,
                break_even="" if even.kind == "unknown" else even.kind,
                break_even_mui=even.at.mui,
                break_even_low=even.at.low,
                break_even_high=even.at.high,
                baseline_seeds=baseline.n_seeds,
            )
        )
    return found


def even_words(row: SummaryRow) -> str:
    """A row's break-even as a reader says it; empty where it has none. Unequal numbers of seeds are named."""
    told = _even_words(row)
    unequal = told and not math.isnan(row.baseline_seeds) and row.baseline_seeds != row.n_seeds
    return f"{told}; n = {row.n_seeds} against n = {row.baseline_seeds:g} of the baseline" if unequal else told


def _even_words(row: SummaryRow) -> str:
    if row.break_even == "unclear":
        return "whether it is greener than its baseline, the intervals do not tell"
    if row.break_even in ("always", "never"):
        return f"{row.break_even} greener than its baseline"
    if not row.break_even:
        return ""
    known = not math.isnan(row.break_even_low)
    high = "no end" if math.isinf(row.break_even_high) else _count(row.break_even_high)
    spread = f" (95 %: {_count(row.break_even_low)} to {high})" if known else ""
    where = "from" if row.break_even == "from" else "below"
    if known and row.break_even_low <= 0 and math.isinf(row.break_even_high):
        told = f"perhaps greener than its baseline {where} {_count(row.break_even_mui)} inferences"
        return f"{told}; the intervals do not tell"
    return f"greener than its baseline {where} {_count(row.break_even_mui)} inferences{spread}"


def cycle_of(row: SummaryRow) -> Cycle:
    """What G needs of a summary row. An empty half-width stays unknown, and so does any interval made from it."""
    return Cycle(
        Uncertain(row.acc_pct, row.acc_ci95_pct),
        Uncertain(row.tec_wh, row.tec_ci95_wh),
        Uncertain(row.iec_wh, row.iec_ci95_wh),
    )


def _g(cycle: Cycle, mui: float, tau: float) -> float:
    return greeness(cycle.acc_pct.value, cycle.tec_wh.value, cycle.iec_wh.value, mui, tau)


def _count(mui: float) -> str:
    for size, unit in ((1e9, " billion"), (1e6, " M"), (1e3, " thousand")):
        if mui >= size:
            return f"{mui / size:.2g}{unit}" if mui < 100 * size else f"{mui / size:.0f}{unit}"
    return f"{mui:.0f}"
