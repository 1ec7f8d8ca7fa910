"""Puts a closed window's estimates, host energies and provenance together into readings."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmark.energy.judge.evaluate import Evaluation, headline, host_dram, host_package, invalid
from benchmark.energy.judge.facts import (
    PAPER_PERIOD_S,
    PAPER_QUERY_S,
    SCHEMA,
    TRACER_VERSION,
    busy_cores,
    gpu_provenance,
    host_facts,
    host_provenance,
    mean_of,
    polled_energies,
    sampling,
    slow_around,
    versions,
)
from benchmark.energy.judge.reading import RawSlice, Reading, worst
from benchmark.energy.meters.device import Device
from benchmark.energy.timeline.clock import utc_label
from benchmark.energy.timeline.gpu_recorder import GpuRecorder
from benchmark.energy.timeline.host_recorder import HostRecorder
from benchmark.energy.timeline.marks import Marks
from benchmark.energy.timeline.raw import Raw
from benchmark.energy.timeline.samples import Mark
from benchmark.energy.timeline.span import Span
from benchmark.intervals import Z975

MEASURED = (
    "joules", "ci95_joules", "paused_joules", "gpu_joules", "cpu_joules", "dram_joules", "cross_joules",
    "gpu_util_pct", "mem_util_pct", "polled_joules", "polled_period_joules", "mean_power_w", "max_power_w",
    "own_cores", "others_cores",
)  # fmt: skip  # one name a line would hide the next function
MIG = "a MIG slice has no power or energy reading of its own"


def _common(window: Marks, sync_method: str) -> dict[str, Any]:
    """What every reading of a window says about the window."""
    seconds = (window.end_ns - window.start_ns) / 1e9
    return {
        "schema": SCHEMA,
        "tracer_version": TRACER_VERSION,
        "window": window.name,
        "status": window.status,
        "t_start_utc": utc_label(window.opened_wall_us),
        "window_s": seconds,
        "pauses": len(window.span().paused()),
        "sync_method": sync_method,
        "parent": window.parent.name if window.parent is not None else None,
        "overhead_s": window.busy_s,
        "pid": os.getpid(),
        **host_facts(),
        **versions(),
    }


def _with_missing(reading: Reading, reasons: dict[str, str]) -> Reading:
    """Name every NaN with its reason; none goes without."""
    missing = {}
    for name in MEASURED:
        if math.isnan(getattr(reading, name)):
            missing[name] = reasons.get(name) or reading.reason or "this device does not give it"
    return replace(reading, missing=missing)


def _marks(window: Marks) -> tuple[Mark, ...]:
    """The edges of the window, its pauses and its children, in seconds since its start."""

    def pair(start_ns: int, end_ns: int, name: str, kind: str) -> Iterator[Mark]:
        yield Mark((start_ns - window.start_ns) / 1e9, name, f"{kind}.begin")
        yield Mark((end_ns - window.start_ns) / 1e9, name, f"{kind}.end")

    found = [*pair(window.start_ns, window.end_ns, window.name, "window")]
    for start_ns, end_ns in window.span().paused():
        found += pair(start_ns, end_ns, window.name, "pause")
    for child in window.children:
        found += pair(child.start_ns, child.end_ns, child.name, "child")
    return tuple(found)


def _children(window: Marks, joules: float) -> tuple[tuple[tuple[str, float], ...], float]:
    parts = tuple((child.name, child.joules) for child in window.children)
    return parts, joules - math.fsum(part for _, part in parts)


def _gpu(window: Marks, device: Device, recorder: GpuRecorder, sync_method: str) -> Reading:
    """One GPU's reading, without host energies."""
    span = window.span()
    aligned = window.aligned.get(device.uuid)
    if device.mig:
        best, other = invalid("", MIG), None
    else:
        best, other = headline(recorder, span, aligned, window.step_period_s)
    cross = other if other is not None and not math.isnan(other.joules) else None
    return Reading(
        name=window.name,
        joules=best.joules,
        ci95_joules=Z975 * best.sd,
        seconds=span.useful_s,
        paused_seconds=span.paused_s,
        paused_joules=best.paused_joules,
        source=best.source,
        grade=best.grade,
        reason=best.reason,
        device=device.uuid,
        mean_power_w=best.joules / span.useful_s if span.useful_s > 0 else math.nan,
        gpu_joules=best.joules,
        cross_source=cross.source if cross else "",
        cross_joules=cross.joules if cross else math.nan,
        cross_rel_diff=(cross.joules - best.joules) / best.joules if cross else math.nan,
        **_sampled(recorder, span),
        unmeasured_s=other.unmeasured_s if other is not None else best.unmeasured_s,
        provenance={
            **_common(window, sync_method),
            **gpu_provenance(recorder, span, best, aligned, window.step_period_s),
            "polled_period": {"period_s": PAPER_PERIOD_S, "query_s": PAPER_QUERY_S},
        },
        raw=(RawSlice(device.uuid, recorder.raw, span.start_ns, span.end_ns, _newest(recorder.raw)),),
        marks=_marks(window),
    )


def _newest(raw: Raw) -> int:
    """The time of the newest reading; of none the beginning of time."""
    return max(raw.t[-64:], default=0)


def _sampled(recorder: GpuRecorder, span: Span) -> dict[str, Any]:
    """The fields of a reading that come from sampling alone, whatever its source."""
    slows = slow_around(recorder, span)
    watts = [w for a, b in span.segments() for w in recorder.power.w[recorder.power.between(a, b)]]
    polled, polled_period = polled_energies(recorder, span)
    facts = sampling(recorder, span)
    return {
        "max_power_w": max(watts, default=math.nan),
        "gpu_util_pct": mean_of(slows, "gpu_util_pct"),
        "mem_util_pct": mean_of(slows, "mem_util_pct"),
        "polled_joules": polled,
        "polled_period_joules": polled_period,
        "n_samples": int(facts["n_samples"]),
        "max_gap_s": float(facts["max_gap_ms"]) / 1000,
    }


def _with_host(reading: Reading, window: Marks, host: HostRecorder) -> Reading:
    """The reading with the host's package and memory energy beside it, and every NaN named."""
    package, dram = host_package(host, window.span()), host_dram(host, window.span())
    span = window.span()
    own_cores, others_cores, why = busy_cores(host, span)
    full = replace(
        reading,
        own_cores=own_cores,
        others_cores=others_cores,
        cpu_joules=package.joules,
        dram_joules=dram.joules,
        cpu_source=package.source,
        dram_source=dram.source,
        provenance={**reading.provenance, **host_provenance(host, package.source)},
        raw=(*reading.raw, RawSlice("host", host.raw, span.start_ns, span.end_ns, _newest(host.raw))),
    )
    cores = {"own_cores": why, "others_cores": why}
    cross = "no second source could be read" if reading.grade != "X" else reading.reason
    return _with_missing(
        full, {**cores, "cpu_joules": package.reason, "dram_joules": dram.reason, "cross_joules": cross}
    )


def readings_of(
    window: Marks, gpus: Sequence[tuple[Device, GpuRecorder]], host: HostRecorder, sync_method: str
) -> tuple[Reading, tuple[Reading, ...]]:
    """(the sum over the devices with the host's energy, one reading per device)."""
    each = [_gpu(window, device, recorder, sync_method) for device, recorder in gpus]
    if len(each) == 1:
        parts, rest = _children(window, each[0].joules)
        whole = _with_host(replace(each[0], children=parts, self_joules=rest), window, host)
        return whole, (whole,)
    host_wide = ("cpu_joules", "dram_joules", "own_cores", "others_cores")
    shared = dict.fromkeys(host_wide, "the host's numbers stand in the sum")
    whole = _with_host(_sum(window, each), window, host)
    return whole, tuple(_with_missing(one, shared) for one in each)


def _sum(window: Marks, each: list[Reading]) -> Reading:
    """Several devices as one: joules add up, NaN if any is; the grade is the worst."""
    joules = math.fsum(one.joules for one in each)
    parts, rest = _children(window, joules)
    return replace(
        each[0],
        joules=joules,
        gpu_joules=joules,
        ci95_joules=math.hypot(*(one.ci95_joules for one in each)),
        paused_joules=math.fsum(one.paused_joules for one in each),
        source="+".join(sorted({one.source for one in each})),
        grade=worst([one.grade for one in each]),
        reason="; ".join(f"{one.device}: {one.reason}" for one in each if one.reason),
        device="+".join(one.device for one in each),
        mean_power_w=math.fsum(one.mean_power_w for one in each),
        max_power_w=math.fsum(one.max_power_w for one in each),
        gpu_util_pct=math.fsum(one.gpu_util_pct for one in each) / len(each),
        mem_util_pct=math.fsum(one.mem_util_pct for one in each) / len(each),
        polled_joules=math.fsum(one.polled_joules for one in each),
        polled_period_joules=math.fsum(one.polled_period_joules for one in each),
        cross_source="+".join(sorted({one.cross_source for one in each})),
        cross_joules=math.fsum(one.cross_joules for one in each),
        cross_rel_diff=(math.fsum(one.cross_joules for one in each) - joules) / joules if joules else math.nan,
        n_samples=sum(one.n_samples for one in each),
        max_gap_s=max(one.max_gap_s for one in each),
        unmeasured_s=max(one.unmeasured_s for one in each),
        children=parts,
        self_joules=rest,
        provenance={**each[0].provenance, "devices": [one.device for one in each]},
        raw=tuple(part for one in each for part in one.raw),
    )


def host_reading(
    window: Marks, device: Device, host: HostRecorder, sync_method: str
) -> tuple[Reading, tuple[Reading, ...]]:
    """The reading of a CPU: RAPL's package, or the estimate."""
    span = window.span()
    best: Evaluation = host_package(host, span)
    parts, rest = _children(window, best.joules)
    reading = Reading(
        name=window.name,
        joules=best.joules,
        ci95_joules=Z975 * best.sd,
        seconds=span.useful_s,
        paused_seconds=span.paused_s,
        paused_joules=best.paused_joules,
        source=best.source,
        grade=best.grade,
        reason=best.reason,
        device=device.uuid,
        mean_power_w=best.joules / span.useful_s if span.useful_s > 0 else math.nan,
        max_power_w=host.package.max_power(span.start_ns, span.end_ns),
        n_samples=host.package.reads_between(span.start_ns, span.end_ns),
        unmeasured_s=0.0,
        children=parts,
        self_joules=rest,
        provenance={
            **_common(window, sync_method),
            "name": device.name,
            "uuid": device.uuid,
            "driver": "",
            "u_stat_and_edge_joules": best.sd,
            "why_not_better": list(device.why_not_better),
        },
        marks=_marks(window),
    )
    full = _with_host(reading, window, host)
    return full, (full,)


def invalid_reading(window: Marks, devices: Sequence[Device], reason: str) -> Reading:
    """A reading without energy, for when there is nothing else to say."""
    seconds = window.span().useful_s
    parts, _ = _children(window, math.nan)
    reading = Reading(
        name=window.name,
        joules=math.nan,
        ci95_joules=math.nan,
        seconds=seconds,
        paused_seconds=window.span().paused_s,
        paused_joules=math.nan,
        source="",
        grade="X",
        reason=reason,
        device="+".join(device.uuid for device in devices),
        children=parts,
        provenance={
            "schema": SCHEMA,
            "tracer_version": TRACER_VERSION,
            "window": window.name,
            "status": window.status,
            "pid": os.getpid(),
        },
    )
    return _with_missing(reading, {})
