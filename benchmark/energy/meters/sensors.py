"""How often a GPU's power sensor publishes (T) and over how long it averages (W), by architecture and field.

Source: the published per-board results of Yang, Adamek and Armour, 'Part-time Power Measurements' (SC 2024). Boards of
one model differ, so a probed value replaces the table's wherever there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sensor:
    """`period_s` (T) between two readings, `window_s` (W) averaged in each, and where the numbers come from."""

    period_s: float
    window_s: float
    origin: str

    @property
    def coverage(self) -> float:
        """The share of time that the sensor sees, at most 1."""
        return min(1.0, self.window_s / self.period_s)


_MS = {
    ("pascal", "any"): (20, 10),
    ("volta", "any"): (20, 10),
    ("turing", "any"): (100, 100),
    ("ga100", "any"): (100, 25),
    ("ampere", "power.instant"): (100, 100),
    ("ampere", "power.usage"): (100, 1000),
    ("ada", "power.instant"): (100, 100),
    ("ada", "power.usage"): (100, 1000),
    ("hopper", "power.instant"): (100, 25),
    ("hopper", "power.usage"): (100, 1000),
}
_ASSUMED_MS = {"power.usage": (100, 1000)}
_GA100_NAMES = ("A100", "A800", "A30")


def sensor_for(identity: dict[str, Any], source: str) -> Sensor:
    """The sensor behind `source` ('power.instant', 'power.usage', 'samples') of a device; the worst known one for
    unknown devices."""
    arch = str(identity.get("arch") or "")
    words = str(identity.get("name") or "").replace("-", " ").split()
    if arch == "ampere" and any(word in _GA100_NAMES for word in words):
        arch = "ga100"
    found = _MS.get((arch, "any")) or _MS.get((arch, source.removesuffix(".module")))
    if found is not None:
        return Sensor(found[0] / 1000, found[1] / 1000, "table")
    period, window = _ASSUMED_MS.get(source, (100, 25))
    return Sensor(period / 1000, window / 1000, "assumed")
