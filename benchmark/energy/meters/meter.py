"""The seam for simple meters: anything that counts joules. RAPL and the estimate are two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Meter(Protocol):
    """A meter has a name, counts, and says how far it can be trusted.

    A wall-plug meter or a replayed trace can be another: `EnergyTracer("cpu", meters=[plug])`. Several meters are added
    up, so they must not see the same energy twice.
    """

    @property
    def source(self) -> str:
        """What measures, as it stands in a record."""

    @property
    def grade(self) -> str:
        """'R' for a meter that counts joules, 'E' for an estimate."""

    @property
    def tick_s(self) -> float:
        """Seconds between two of its updates: an edge of a window may be off by one."""

    @property
    def relative_sd(self) -> float:
        """Standard uncertainty of its energies, as a share of them; 0 where nothing is known but its updates."""

    def read(self) -> float:
        """Joules so far; NaN if they cannot be told."""


def why_no_meter(meter: Meter) -> str:
    """What an object lacks to be a meter that a record can name; empty if nothing."""
    try:
        source, grade, tick_s, relative_sd = meter.source, meter.grade, meter.tick_s, meter.relative_sd
    except AttributeError as error:
        return f"{type(meter).__name__} is no meter: {error}; see benchmark.energy.Meter"
    if not isinstance(source, str) or not source.strip() or source.startswith(("nvml:", "rapl:", "estimate:")):
        return f"the meter's source {source!r} must be a name of its own: it stands in every record"
    if grade not in ("R", "E"):
        return f"the meter {source} has grade {grade!r}: say R if it counts joules, E if it estimates them"
    if not (0 < tick_s < math.inf and 0 <= relative_sd < math.inf):
        return f"the meter {source} must have tick_s > 0 and relative_sd >= 0, not {tick_s} and {relative_sd}"
    return ""


class Together:
    """Several meters as one: their joules add up; the worst of their grades and the slowest of their updates count."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self.meters = tuple(meters)
        self.source = "+".join(meter.source for meter in meters)
        self.grade = "E" if any(meter.grade == "E" for meter in meters) else "R"
        self.tick_s = max(meter.tick_s for meter in meters)
        self.relative_sd = max(meter.relative_sd for meter in meters)

    def read(self) -> float:
        """The sum; NaN if one of them cannot tell."""
        return math.fsum([meter.read() for meter in self.meters])
