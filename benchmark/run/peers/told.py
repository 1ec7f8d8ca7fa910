"""What a tool tells of the work, and what a module of a tool hands over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXTRA = "full-cycle-energy-benchmark[compare]"
"""What installs the tools that run beside our pins."""


@dataclass(frozen=True)
class Told:
    """What one tool reports: `wh` (NaN where none), `how` it got there, `why` there is none or it is doubtful.

    `seconds` is the time the tool was on, its neighbours' starts and stops included: tools that start first see more
    than the work. `estimate` says that the number, or a part of it, rests on a model and not on a meter.
    """

    tool: str
    version: str
    wh: float
    how: str
    why: str = ""
    seconds: float = math.nan
    estimate: bool = True

    @property
    def mean_w(self) -> float:
        """Mean power in watts over the tool's own time; NaN where it gave no number."""
        return self.wh * 3600 / self.seconds if self.seconds > 0 else math.nan


Stop = Callable[[], tuple[float, str]]
"""Ends a tool's window: (W h, what it read and added; empty: as announced)."""
Start = Callable[[], Stop]
"""Opens a tool's window."""


@dataclass(frozen=True)
class Peer:
    """A tool: its `distribution` on the package index, the `module` that it imports, in words `how` it measures.

    `prepare(folder)` imports and sets it up, with an empty folder for its files, and returns what starts it. Whatever
    any of the three steps raises becomes the tool's reason. `absent` is said where the module is not installed.
    """

    tool: str
    distribution: str
    module: str
    how: str
    prepare: Callable[[Path], Start]
    absent: str = f"not installed: pip install '{EXTRA}'"
