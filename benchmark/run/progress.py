"""One line per stage: a moving one on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple, TextIO

PLAIN_EVERY_S = 30.0


class Spending(NamedTuple):
    """Joules so far, and watts now; NaN where no meter can tell."""

    joules: float
    watts: float


class Progress:
    """Shows how far a stage is, what it spends and how long it will take. Owns the last line of a terminal while
    open."""

    def __init__(self, title: str, estimated: bool, stream: TextIO | None = None) -> None:
        self.title = title
        self.estimated = estimated
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.began = self.last = time.monotonic()
        self._first_done: float | None = None
        self._kept: dict[str, float] = {}
        if not self.terminal:
            self._line(f"{title} ...")

    def update(self, done: float, total: float, shown: Mapping[str, float], energy: Spending) -> None:
        """Show how far the stage is: `done` of `total`, numbers to show, and (joules so far, watts now)."""
        self._kept.update(shown)
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = done if done < total else 0.0
            self.began = now  # what was resumed, or waited for before the work, took none of this time
        if now - self.last < (0.2 if self.terminal else PLAIN_EVERY_S):
            return
        self.last = now
        share = done / total if total else 0.0
        new = done - self._first_done
        left = (total - done) * (now - self.began) / new if new > 0 else math.nan
        words = (_bar(share), f"{done:.1f}/{total:g}", self._numbers())
        so_far = " ".join([self.title, *filter(None, words)])
        self._line(f"{so_far}, {self._energy(energy)}, left {clock(left)}", moving=True)

    def note(self, text: str) -> None:
        """Show a line that lasts."""
        self._line(f"{self.title} {text}")

    def close(self, text: str) -> None:
        """End with a lasting line."""
        self.note(text)

    def _numbers(self) -> str:
        return " ".join(f"{name} {value:.4g}" for name, value in self._kept.items() if math.isfinite(value))

    def _energy(self, energy: Spending) -> str:
        joules, watts = energy
        if not math.isfinite(joules):
            return "energy unknown"
        about = "~" if self.estimated else ""
        power = f" at {about}{watts:.0f} W" if math.isfinite(watts) else ""
        return f"{about}{joules / 3600:.4g} W.h spent{power}"

    def _line(self, text: str, moving: bool = False) -> None:
        if self.terminal:
            width = shutil.get_terminal_size().columns  # a longer line would wrap, and could not be taken back
            self.stream.write(f"\r\x1b[2K{text[: width - 1]}" if moving else f"\r\x1b[2K{text}\n")
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


def _bar(share: float, width: int = 12) -> str:
    full = round(max(0.0, min(1.0, share)) * width)
    return "[" + "#" * full + "-" * (width - full) + f"] {100 * share:3.0f} %"


def clock(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 05 s, 2 h 07 min, or ? where unknown."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
