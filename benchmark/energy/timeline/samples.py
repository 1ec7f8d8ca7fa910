"""The raw readings beside a record: written as gzipped CSV, thinned where a window is long, and integrated again.

Rows of kind 'window.begin', 'pause.begin', 'child.begin' (and '.end') are marks, so that the file alone is enough.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmark.energy.timeline.curves import CounterCurve, PowerCurve, TotalCurve
from benchmark.energy.timeline.span import Span

WHOLE_S = 3600.0
"""Windows up to an hour are kept whole. At 20 counter and power readings a second that is 144,000 rows, about 1.5 MB
of gzip; a study of a hundred such stages stays a repository that can be cloned."""
SLOT_S = 0.5
"""Beyond it: one reading of a kind in so many seconds, fine enough to see throttling and stalls."""
NEAR_S = 2.0
"""But every reading this close to a mark: there the ticks decide how much energy lies on which side."""
COLUMNS = ("t_s", "device", "kind", "value", "call_us")
_NS = 1e9


class Sample(NamedTuple):
    """One raw reading: seconds since the window's start, device, kind ('counter_mj', 'power.instant_mw', ...), value,
    call time in us."""

    t_s: float
    device: str
    kind: str
    value: int
    call_us: float


class Mark(NamedTuple):
    """An edge of the window, a pause or a child: seconds since the window's start, whose, and which ('pause.begin')."""

    t_s: float
    name: str
    kind: str


def thinned(samples: Iterable[Sample], marks: Iterable[Mark], source: str) -> Iterator[Sample]:
    """The samples of a window of up to WHOLE_S; of a longer one what integrating its `source` again needs, and the rest
    thinned.

    A cumulative meter (counter, RAPL) needs its readings near the marks alone, since between them only differences
    count; polled power and the driver's samples need every reading.
    """
    edges = sorted(mark.t_s for mark in marks if not mark.kind.startswith("child."))
    if not edges or edges[-1] - edges[0] <= WHOLE_S:
        yield from samples
        return
    polled = {f"{part.removeprefix('nvml:')}_mw" for part in source.split("+")}
    near = list(_merged(edges))
    taken: dict[tuple[str, str], tuple[int, int]] = {}
    for sample in samples:
        key, slot = (sample.device, sample.kind), int(sample.t_s // SLOT_S)
        last_slot, place = taken.get(key, (-(2**62), 0))
        while place < len(near) and near[place][1] < sample.t_s:
            place += 1
        inside = place < len(near) and near[place][0] <= sample.t_s
        if inside or sample.kind in polled or slot != last_slot:
            yield sample
            last_slot = slot
        taken[key] = (last_slot, place)


def _merged(edges: list[float]) -> Iterator[tuple[float, float]]:
    low, high = edges[0] - NEAR_S, edges[0] + NEAR_S
    for edge in edges[1:]:
        if edge - NEAR_S > high:
            yield low, high
            low = edge - NEAR_S
        high = edge + NEAR_S
    yield low, high


def packed(samples: Iterable[Sample], marks: Iterable[Mark]) -> tuple[bytes, int]:
    """(gzipped CSV of marks and samples, number of samples). Same readings, same bytes: no name and no time in it."""
    file, count = io.BytesIO(), 0
    with (
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped,
        io.TextIOWrapper(zipped, encoding="utf-8", newline="") as text,
    ):
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows((f"{m.t_s:.6f}", m.name, m.kind, 0, 0) for m in marks)
        for s in samples:
            rows.writerow((f"{s.t_s:.6f}", s.device, s.kind, s.value, f"{s.call_us:.0f}"))
            count += 1
    return file.getvalue(), count


def read(path: Path, most_bytes: int | None = None) -> tuple[list[Sample], list[Mark]]:
    """What `packed` wrote. ValueError where it unpacks to more than `most_bytes`: a stranger's may hold anything."""
    samples: list[Sample] = []
    marks: list[Mark] = []
    with gzip.open(path, "rb") as packed_file:
        content = packed_file.read() if most_bytes is None else packed_file.read(most_bytes + 1)
    if most_bytes is not None and len(content) > most_bytes:
        raise ValueError(f"it unpacks to more than {most_bytes / 1e6:.0f} MB")
    with io.StringIO(content.decode("utf-8"), newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"].endswith((".begin", ".end")):
                marks.append(Mark(float(row["t_s"]), row["device"], row["kind"]))
            else:
                call_us = float(row["call_us"])
                samples.append(Sample(float(row["t_s"]), row["device"], row["kind"], int(row["value"]), call_us))
    return samples, marks


def integrate(path: Path, kind: str = "counter_mj", device: str = "") -> float:
    """Useful joules of a file's window from one kind of its readings ('counter_mj', 'power.instant_mw', 'package_mj',
    ...).

    NaN where there are too few. With several devices in the file, name one. For windows that were not aligned to ticks.
    """
    samples, marks = read(path)
    own = sorted((s for s in samples if s.kind == kind and device in ("", s.device)), key=lambda s: s.t_s)
    curve: CounterCurve | TotalCurve | PowerCurve
    curve = CounterCurve() if kind == "counter_mj" else PowerCurve() if kind.endswith("_mw") else TotalCurve()
    for sample in own:
        if isinstance(curve, CounterCurve):  # when a tick came, the time that each call took tells, too
            curve.add(_ns(sample.t_s), sample.value / 1000, round(sample.call_us * 1000))
        else:
            curve.add(_ns(sample.t_s), sample.value / 1000)
    span = _span(marks)
    return span.total_energy(curve.energy_at) - span.paused_energy(curve.energy_at) if own else math.nan


def _span(marks: list[Mark]) -> Span:
    at = {kind: [_ns(mark.t_s) for mark in marks if mark.kind == kind] for kind in {mark.kind for mark in marks}}
    pauses = zip(at.get("pause.begin", []), at.get("pause.end", []), strict=True)
    return Span(at["window.begin"][0], at["window.end"][0], tuple(pauses))


def _ns(t_s: float) -> int:
    return round(t_s * _NS)
