"""Every reading of a device as it came, in arrays: what a window keeps beside its joules."""

from __future__ import annotations

from array import array

KINDS = (
    "counter_mj",
    "power.instant_mw",
    "power.usage_mw",
    "power.instant.module_mw",
    "samples_mw",
    "package_mj",
    "dram_mj",
)
"""Names of the raw readings, by their number in `Raw.kind`."""


class Raw:
    """Every reading as it came: time, kind, value, and how long the call took. Nothing is de-duplicated."""

    def __init__(self) -> None:
        self.t = array("q")
        self.kind = array("b")
        self.value = array("q")
        self.call_ns = array("q")

    def add(self, t_ns: int, kind: str, value: int, call_ns: int) -> None:
        """Append a reading (`kind` is one of KINDS)."""
        self.t.append(t_ns)
        self.kind.append(KINDS.index(kind))
        self.value.append(value)
        self.call_ns.append(call_ns)
