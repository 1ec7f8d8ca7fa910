"""What a results folder cost in all: every record once, beside the sum that rows attribute, by phase and by family."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.energy.judge.reading import is_estimate
from benchmark.plan.stage import Phase
from benchmark.records.attempt import Attempt, read_attempt
from benchmark.records.files import StoreError
from benchmark.records.record import MOST_JOULES
from benchmark.records.store import Store
from benchmark.report.rows import J_PER_WH, StageRow


class Total(NamedTuple):
    """Energies of a set of stages in W.h: `spent` counts each record once, with what was repeated; `attributed` counts
    it in each life that rests on it, as TEC does. `unknown` records have no energy."""

    name: str
    spent_wh: float
    attributed_wh: float
    records: int
    unknown: int


def totals(stages: Sequence[StageRow]) -> list[Total]:
    """The totals by phase, then by family of methods (a record belongs to the family that mentions it first), then of
    all. Inference measurements are what measuring cost: they are spent, and attributed to no life."""
    phases = [_total(str(phase), (row for row in stages if row.phase == phase)) for phase in Phase]
    families = sorted({_family(row) for row in stages})
    by_family = [_total(family, (row for row in stages if _family(row) == family)) for family in families]
    return [each for each in (*phases, *by_family) if each.records or each.attributed_wh] + [_total("all", stages)]


def lines(stages: Sequence[StageRow]) -> Iterator[str]:
    """The total for people, one line."""
    found = {each.name: each for each in totals(stages)}
    whole = found["all"]
    about = "~" if any(is_estimate(row.energy_source) for row in stages) else ""
    parts = ", ".join(f"{phase} {about}{found[phase].spent_wh:.4g}" for phase in map(str, Phase) if phase in found)
    if not whole.records:
        return
    yield f"spent in all: {about}{whole.spent_wh:.4g} W.h, each of {whole.records} records once ({parts})"
    if whole.attributed_wh:
        yield (
            f"TEC of all rows together: {about}{whole.attributed_wh:.4g} W.h; what several share (a base training, a "
            "teacher) counts in each, and engines, measuring and what was repeated in none"
        )
    if whole.unknown:
        yield f"of {whole.unknown} of these records the energy is unknown: both sums are lower bounds"


def unfinished(store: Store, booked: Collection[str]) -> Iterator[str]:
    """What stages that run now, or were interrupted, have spent so far, in one line: it is in no row before they end.

    `booked` are the attempts that records account for. A journal that cannot be read, or that says what nobody can have
    spent, counts as one of unknown energy.
    """
    try:
        attempts = [_attempt(path) for path in store.unfinished() if path.exists()]
    except StoreError as error:
        yield f"what unfinished stages spent is unknown: {error}"
        return
    left = [attempt for attempt in attempts if attempt is None or attempt.id not in booked]
    known = [each for each in left if each and each.joules is not None and 0 <= each.joules <= MOST_JOULES]
    if left:
        about = "~" if any(is_estimate(each.source) or not each.source for each in known) else ""
        spent_wh = math.fsum(each.joules or 0.0 for each in known) / J_PER_WH
        unknown = f" ({len(left) - len(known)} of them an unknown amount)" if len(known) < len(left) else ""
        many = f"{len(left)} attempt(s) at stages that have not ended"
        yield f"in no row yet: {many} spent {about}{spent_wh:.4g} W.h or more{unknown}"


def _attempt(path: Path) -> Attempt | None:
    with contextlib.suppress(StoreError):
        return read_attempt(path)
    return None


def _total(name: str, rows: Iterable[StageRow]) -> Total:
    spent, attributed, records, unknown = [], [], 0, 0
    for row in rows:
        once = [row.energy_wh if row.kind != "IEC" else row.protocol_wh, row.repeated_wh]
        if row.first_mention:
            records += 1
            unknown += math.isnan(once[0])
            spent += [each for each in once if not math.isnan(each)]
        if row.kind == "TEC" and not math.isnan(row.energy_wh):
            attributed.append(row.energy_wh)
    return Total(name, math.fsum(spent), math.fsum(attributed), records, unknown)


def _family(row: StageRow) -> str:
    return row.method.partition("/")[0]
