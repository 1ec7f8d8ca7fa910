"""A window as marks on the timeline: a start, an end, and pauses to leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """From `start_ns` to `end_ns` without `pauses` (any order, overlaps allowed)."""

    start_ns: int
    end_ns: int
    pauses: tuple[tuple[int, int], ...] = ()

    def paused(self) -> list[tuple[int, int]]:
        """The pauses inside the window, merged and in order."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted((max(a, self.start_ns), min(b, self.end_ns)) for a, b in self.pauses):
            if end <= start:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def segments(self) -> list[tuple[int, int]]:
        """What is left of the window, in order."""
        marks = [self.start_ns]
        for start, end in self.paused():
            marks += [start, end]
        marks.append(self.end_ns)
        return [(a, b) for a, b in zip(marks[::2], marks[1::2], strict=True) if b > a]

    @property
    def paused_s(self) -> float:
        """Seconds paused."""
        return sum(end - start for start, end in self.paused()) / 1e9

    @property
    def useful_s(self) -> float:
        """Seconds not paused."""
        return (self.end_ns - self.start_ns) / 1e9 - self.paused_s

    def paused_energy(self, energy_at: Callable[[int], float]) -> float:
        """Joules of the pauses on a curve."""
        return math.fsum(energy_at(end) - energy_at(start) for start, end in self.paused())

    def total_energy(self, energy_at: Callable[[int], float]) -> float:
        """Joules from start to end, pauses included."""
        return energy_at(self.end_ns) - energy_at(self.start_ns)
