"""One window as marks on the timeline, and what happened to it: written by the windows' ledger, read by the judge."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmark.energy.timeline.span import Span


class Tick(NamedTuple):
    """The tick of the counter that opened an aligned window on one device: when, the count, and how far off the time
    can be."""

    t_ns: int
    joules: float
    half_width_s: float


@dataclass(frozen=True)
class Aligned:
    """What the waits for ticks found: joules at both edges (the end corrected for the gap), that correction, the
    stamps' sd in s, the correction's sd, and the mean power right after the work."""

    start_j: float
    end_j: float
    gap_j: float
    stamp_sd_s: float
    gap_sd_j: float
    after_w: float


class Child(NamedTuple):
    """A closed window wholly inside another: its edges and its joules. Its readings are not kept: a window may hold
    ten thousand children."""

    start_ns: int
    end_ns: int
    name: str
    joules: float


@dataclass(eq=False)
class Marks:
    """The edges of a window, its pauses and its children. `error` is why it can have no energy, `status` how it
    ended."""

    name: str
    align: bool = False
    step_period_s: float | None = None
    start_ns: int = 0
    end_ns: int = 0
    opened: bool = False
    opened_in_pause: bool = False
    opened_wall_us: int = 0
    busy_s: float = 0.0
    """CPU seconds of the sampler: its total at the start, and at the end what it took during the window."""
    error: str = ""
    status: str = "complete"
    parent: Marks | None = None
    children: list[Child] = field(default_factory=list)
    """In order of time; no two of them overlap."""
    pauses: list[tuple[int, int]] = field(default_factory=list)
    open_pauses: dict[int, int] = field(default_factory=dict)
    """The starts of pauses under way, by their keys."""
    ticks: dict[str, Tick] = field(default_factory=dict)
    aligned: dict[str, Aligned] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether the window has begun and not ended."""
        return self.opened and self.end_ns == 0

    def span(self, now_ns: int | None = None) -> Span:
        """The window's time, up to `now_ns` if it is still open; a pause under way lasts to the end."""
        end = self.end_ns or now_ns or self.start_ns
        unfinished = tuple((start, end) for start in list(self.open_pauses.values()))
        return Span(self.start_ns, end, (*self.pauses, *unfinished))

    def end_pause(self, key: int, now_ns: int) -> None:
        """The pause of this key ends; nothing happens where none began."""
        start = self.open_pauses.pop(key, None)
        if start is not None:
            self.pauses.append((start, now_ns))

    def adopt(self, child: Child) -> None:
        """Take in a closed window, unless it overlaps a child: then the two would count something twice."""
        place = bisect_left(self.children, child)
        overlaps_earlier = place > 0 and self.children[place - 1].end_ns > child.start_ns
        overlaps_later = place < len(self.children) and self.children[place].start_ns < child.end_ns
        if not overlaps_earlier and not overlaps_later:
            self.children.insert(place, child)
