"""Every reading of a device as it came, in arrays: what a window keeps beside its joules."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from benchmark.energy.timeline.thinning import SLOT_NS, is_near

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
        self._columns = (array("q"), array("b"), array("q"), array("q"))

    @property
    def columns(self) -> tuple[array[int], array[int], array[int], array[int]]:
        """Times, kinds (numbers of KINDS), values and durations of the calls in ns; the last one grows last."""
        return self._columns

    @property
    def t(self) -> array[int]:
        """The times of the readings in ns; those of a driver's own buffer come late."""
        return self._columns[0]

    @property
    def kind(self) -> array[int]:
        """The kinds of the readings, as numbers of KINDS."""
        return self._columns[1]

    def add(self, t_ns: int, kind: str, value: int, call_ns: int) -> None:
        """Append a reading (`kind` is one of KINDS)."""
        for column, each in zip(self._columns, (t_ns, KINDS.index(kind), value, call_ns), strict=True):
            column.append(each)

    def thin(self, until_ns: int, edges: Sequence[int]) -> None:
        """Keep of what is older one reading of a kind in a slot, and all around the edges. Who reads the columns
        meanwhile goes on with the old ones."""
        t, kinds = self._columns[:2]
        taken: dict[int, int] = {}
        stay = []
        for i in range(len(t)):
            slot = t[i] // SLOT_NS
            if t[i] >= until_ns or taken.get(kinds[i]) != slot or is_near(t[i], edges):
                stay.append(i)
                taken[kinds[i]] = slot
        t, kind, value, call = (array(column.typecode, [column[i] for i in stay]) for column in self._columns)
        self._columns = (t, kind, value, call)
