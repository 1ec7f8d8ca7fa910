"""What a window gives back: joules with their uncertainty, grade and history, as plain data that survives JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.energy.timeline.raw import KINDS, Raw
from benchmark.energy.timeline.samples import Mark, Sample, packed, thinned

GRADES = "ABCDREX"
DISTURBED = 0.1
"""Above this share of the CPU time, and of a core, other work is worth a line."""
_BESIDE = ("raw", "marks")
"""Fields that lie in the samples' file, not in JSON."""
MARGIN_NS = 300_000_000
_ORDER = {grade: place for place, grade in enumerate("ABCRDEX")}


def is_estimate(source: str) -> bool:
    """Whether any part of an energy from this source was estimated, and not measured."""
    return "estimate:" in source


def is_of_gpu(source: str) -> bool:
    """Whether any part of an energy from this source is a GPU's, whose meter does not see what processors do."""
    return "nvml" in source


def is_of_cpu(source: str) -> bool:
    """Whether an energy from this source is a computer's own, which other work beside a run raises (one by a meter of
    the user's, too)."""
    return bool(source) and not is_of_gpu(source)


def worst(grades: list[str]) -> str:
    """The least trusted of several grades."""
    return max(grades, key=_ORDER.__getitem__) if grades else "X"


@dataclass(frozen=True)
class RawSlice:
    """The readings of one device that belong to a window, with a margin on either side: the edges lie between two
    readings.

    `closed_ns` is when the window closed, so that a slice does not grow with a session that goes on. More than an hour
    later the session may have thinned what it holds (benchmark.energy.timeline.thinning).
    """

    device: str
    raw: Raw
    start_ns: int
    end_ns: int
    closed_ns: int

    def __iter__(self) -> Iterator[Sample]:
        t, kind, value, call_ns = self.raw.columns
        first, last = self.start_ns - MARGIN_NS, min(self.end_ns + MARGIN_NS, self.closed_ns)
        for i in range(len(call_ns)):
            if first <= t[i] <= last:
                yield Sample((t[i] - self.start_ns) / 1e9, self.device, KINDS[kind[i]], value[i], call_ns[i] / 1e3)


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clean(value: object) -> object:
    """The value with NaN as None, tuples as lists: what JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return _number(value) if isinstance(value, float) else value


@dataclass(frozen=True)
class Reading:
    """The energy of one window.

    `joules` is the headline: GPU energy on a GPU, package energy (or the estimate, grade E) on a CPU; `ci95_joules` the
    half-width of its 95 % interval without the board's gain error (see `provenance["u_gain_joules"]`). Pauses are left
    out of every energy but `paused_joules`. Unknown numbers are NaN and named with their reason in `missing`.
    `children` plus `self_joules` is `joules`.

    `own_cores` is how many processor cores this process and its descendants kept busy on average, `others_cores` how
    many every other process of the computer did: work beside a run raises an estimate, and RAPL counts it whole.

    `polled_joules` is the mean of the sampled power times time, as a polling script books it; `polled_period_joules`
    books 0.1 s for each query cycle of 0.18 s, as polling nvidia-smi in the paper's manner would.
    """

    name: str
    joules: float
    ci95_joules: float
    seconds: float
    paused_seconds: float
    paused_joules: float
    source: str
    grade: str
    reason: str = ""
    device: str = ""
    mean_power_w: float = math.nan
    max_power_w: float = math.nan
    gpu_joules: float = math.nan
    cpu_joules: float = math.nan
    dram_joules: float = math.nan
    cpu_source: str = ""
    dram_source: str = ""
    gpu_util_pct: float = math.nan
    mem_util_pct: float = math.nan
    polled_joules: float = math.nan
    polled_period_joules: float = math.nan
    cross_source: str = ""
    cross_joules: float = math.nan
    cross_rel_diff: float = math.nan
    n_samples: int = 0
    max_gap_s: float = math.nan
    unmeasured_s: float = math.nan
    own_cores: float = math.nan
    others_cores: float = math.nan
    children: tuple[tuple[str, float], ...] = ()
    self_joules: float = math.nan
    missing: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    raw: tuple[RawSlice, ...] = field(default=(), compare=False, repr=False)
    marks: tuple[Mark, ...] = field(default=(), compare=False, repr=False)

    @property
    def wh(self) -> float:
        """The headline in W.h."""
        return self.joules / 3600

    def __str__(self) -> str:
        """One line: 'train: 0.2257 ± 0.0009 W.h in 12.1 s (nvml:counter, grade A)'; '~' marks an estimate."""
        why = f": {self.reason}" if self.reason else ""
        if math.isnan(self.joules):
            return f"{self.name}: no energy in {self.seconds:.1f} s (grade {self.grade}{why})"
        about, spread = "~" if is_estimate(self.source) else "", self.ci95_joules / 3600
        told = "unknown" if math.isnan(spread) else f"{spread:.2g}"
        energy = f"{about}{self.wh:.4g} ± {told} W.h in {self.seconds:.1f} s"
        return f"{self.name}: {energy} ({self.source}, grade {self.grade}{why})"

    @property
    def disturbance(self) -> str:
        """What other programs took of a CPU whose energy this is, in words; empty where it is little or unknown, and on
        a GPU, whose meter does not see it."""
        used = self.own_cores + self.others_cores
        if math.isnan(self.joules) or not is_of_cpu(self.source):
            return ""
        if not self.others_cores > max(DISTURBED * used, DISTURBED):
            return ""
        beside = f"other programs kept {self.others_cores:.1f} cores busy beside the {self.own_cores:.1f} of this run"
        return f"{beside}, which raises its energy"

    @property
    def text(self) -> str:
        """The headline for people: '812.4 ± 3.1 J (B)', '~12.1 ± 9.5 J (E, estimated)', 'no energy: ...'."""
        if math.isnan(self.joules):
            return f"no energy: {self.reason}"
        before, after = ("~", ", estimated") if self.grade == "E" else ("", "")
        return f"{before}{self.joules:.4g} ± {self.ci95_joules:.2g} J ({self.grade}{after})"

    @property
    def coverage(self) -> float:
        """The share of the useful time that was sampled."""
        return 1 - self.unmeasured_s / self.seconds if self.seconds > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: NaN becomes null, the raw samples stay out."""
        return {f.name: _clean(getattr(self, f.name)) for f in fields(self) if f.name not in _BESIDE}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """The reading that `to_json` wrote; KeyError or TypeError for anything else."""
        known = {f.name: f for f in fields(cls) if f.name not in _BESIDE}
        unknown = set(data) - set(known)
        if unknown:
            raise KeyError(f"unknown fields in a reading: {sorted(unknown)}")
        values: dict[str, Any] = {name: _parsed(str(known[name].type), value) for name, value in data.items()}
        values["children"] = tuple((str(name), _float(joules)) for name, joules in data.get("children", ()))
        if values.get("grade") not in _ORDER:
            raise KeyError(f"unknown grade {values.get('grade')!r}")
        return cls(**values)

    def samples(self) -> Iterator[Sample]:
        """Every raw reading of the window and 0.3 s around it, device after device, none dropped; `t_s` counts from its
        start."""
        for part in self.raw:
            yield from part

    def samples_csv_gz(self, *, thin: bool = False) -> bytes:
        """Marks and raw readings as gzipped CSV (see timeline.samples); `thin` shortens windows beyond an hour."""
        samples = thinned(self.samples(), self.marks, self.source) if thin else self.samples()
        return packed(samples, self.marks)[0]

    def write_samples_csv_gz(self, path: Path) -> int:
        """Write them all to a file (t_s, device, kind, value, call_us); returns how many readings. Same readings, same
        bytes."""
        content, count = packed(self.samples(), self.marks)
        path.write_bytes(content)
        return count


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _parsed(kind: str, value: object) -> object:
    if kind != "float":
        return value
    if value is not None and not isinstance(value, (int, float)):
        raise TypeError(f"a number was expected, not {value!r}")
    return _float(value)
