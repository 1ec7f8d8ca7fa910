"""What of a long session stays in memory.

The last hour stays whole. Of what is older enough stays to see throttling and stalls, and every reading around the
edges of windows and pauses, where energies are taken. Energies do not change by it, because curves keep their sums.
Without it a window of a day would hold 250 MB.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

WHOLE_NS = 3_600_000_000_000
"""So long nothing is thinned."""
EVERY_NS = 600_000_000_000
"""And then this often, so that it costs next to nothing."""
SLOT_NS = 500_000_000
"""One reading in so long stays."""
SLOW_SLOT_NS = 10_000_000_000
"""Of clocks, temperatures and processes, which are read once a second."""
NEAR_NS = 2_000_000_000
"""All readings this close to an edge stay."""


def kept(t: Sequence[int], low: int, high: int, edges: Sequence[int], slot_ns: int = SLOT_NS) -> list[int]:
    """Which of the readings t[low:high], in order of time, stay. `edges` are in order of time, too."""
    found: list[int] = []
    last_slot = -1
    for i in range(low, high):
        slot = t[i] // slot_ns
        if slot != last_slot or is_near(t[i], edges):
            found.append(i)
        last_slot = slot
    return found


def is_near(t_ns: int, edges: Sequence[int]) -> bool:
    """Whether an edge is so near that a reading at this time decides its energy."""
    return bisect_left(edges, t_ns - NEAR_NS) < bisect_right(edges, t_ns + NEAR_NS)
