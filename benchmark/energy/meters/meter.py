"""The seam for simple meters: anything that counts joules."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """A meter has a name and counts. `estimate.TdpLoad` is one; a wall-plug meter or a replayed trace can be
    another."""

    @property
    def source(self) -> str:
        """What measures, as it stands in a record."""

    def read(self) -> float:
        """Joules so far; NaN if they cannot be told."""
