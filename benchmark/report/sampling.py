"""Power as a slower sampler would have seen it: a record's readings, thinned offline (the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmark.energy.timeline.samples import read
from benchmark.errors import UserError

PERIODS_S = (0.1, 0.5, 1.0)
"""The paper's."""


class Sampled(NamedTuple):
    """Power read every `period_s`: times and watts, their mean, and the joules that mean power times time gives."""

    period_s: float
    power: pd.DataFrame
    mean_w: float
    joules: float


def sampled(path: Path, kind: str = "power.instant_mw", periods_s: Sequence[float] = PERIODS_S) -> list[Sampled]:
    """The readings of a `.samples.csv.gz` (columns t_s, watts) as every period would have seen them: the first reading
    in each slot.

    A period shorter than the readings' own gives them all. Raises UserError where the file has no reading of the kind.
    """
    samples, _ = read(path)
    found = [(each.t_s, each.value / 1000) for each in samples if each.kind == kind]
    if len(found) < 2:
        kinds = ", ".join(sorted({each.kind for each in samples})) or "nothing"
        raise UserError(f"{path} holds no two readings of {kind}: there is {kinds}")
    power = pd.DataFrame(found, columns=["t_s", "watts"]).sort_values("t_s", ignore_index=True)
    return [_every(power, period_s) for period_s in periods_s]


def _every(power: pd.DataFrame, period_s: float) -> Sampled:
    # a millionth of a slot: 0.3 / 0.1 is a little less than 3
    slots = ((power["t_s"] - power["t_s"].iloc[0]) / period_s + 1e-6).astype(int)
    kept = power.loc[~slots.duplicated()].reset_index(drop=True)
    mean_w = float(kept["watts"].mean())
    return Sampled(period_s, kept, mean_w, mean_w * float(power["t_s"].iloc[-1] - power["t_s"].iloc[0]))
