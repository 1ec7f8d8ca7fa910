"""Power over time from a stage's file of readings, which may be a stranger's: what cannot be used is no reading."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.energy.timeline.samples import Mark, Sample, read

POWER = ("power.instant_mw", "power.usage_mw", "samples_mw")
"""Kinds of readings that are the board's power, the best first."""

MOST_UNPACKED = 64_000_000
"""Bytes of CSV: some hours of readings. A longer file has no curve."""

MOST_S, MOST_W = 1e8, 1e6
"""Three years, a megawatt: beyond these a reading is none."""


class Power(NamedTuple):
    """Readings of one kind within a window, in order: (seconds since it began, watts); and its pauses (begin, end)."""

    points: list[tuple[float, float]]
    pauses: list[tuple[float, float]]


def power_of(path: Path | None) -> Power | None:
    """The best kind of power readings in a file; None where there are not two, or it cannot be read."""
    found = None if path is None else readings_of(path)
    if found is None:
        return None
    samples, marks = found
    closed = [mark.t_s for mark in marks if mark.kind == "window.end"]
    end = closed[0] if closed else MOST_S
    for kind in POWER:
        points = sorted((each.t_s, each.value / 1000) for each in samples if each.kind == kind and 0 <= each.t_s <= end)
        if len(points) > 1:
            return Power(points, _pauses(marks))
    return None


def readings_of(path: Path) -> tuple[list[Sample], list[Mark]] | None:
    """All readings of a file that can be true; None where it cannot be read."""
    try:
        samples, marks = read(path, MOST_UNPACKED)
        usable = [each for each in samples if abs(each.t_s) <= MOST_S and 0 <= each.value <= 1000 * MOST_W]
        return usable, [mark for mark in marks if math.isfinite(mark.t_s)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, zlib.error, csv.Error):
        return None


def _pauses(marks: Sequence[Mark]) -> list[tuple[float, float]]:
    begun, ended = ([mark.t_s for mark in marks if mark.kind == f"pause.{edge}"] for edge in ("begin", "end"))
    return list(zip(begun, ended, strict=False))
