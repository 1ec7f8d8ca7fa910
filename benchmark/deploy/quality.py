"""Which windows of a measurement count: why a window is rejected, and what is only noted.

Rejected windows stay in the record. A board at its power limit is only noted: this is the steady state of many boards
(L4, T4, A10, most PCIe boards), also in normal use. A window in which heat or the hardware slowed the board down is
rejected, because this is not the board's normal behaviour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.energy.judge.reading import is_estimate
from benchmark.plan.stage import Cost

THROTTLED_SHARE = 0.01
CLOCK_SPREAD = 0.03
UNMEASURED_SHARE = 0.05
DISAGREEMENT = 0.05

SETTLED_POWER = 0.01
SETTLED_C_PER_30_S = 1.0


MOSTLY = 0.5
"""Share of a window at the power limit from which on the limit explains clock changes."""


def rejection(cost: Cost) -> str:
    """Why a window must not count, in words; empty where it counts."""
    if not math.isfinite(cost.joules):
        return cost.reason or "no energy"
    reading = cost.reading
    seen = reading.get("provenance") or {}
    seconds = cost.seconds * cost.n
    found = []
    hot = _number(seen.get("throttle_thermal_ns")) / 1e9 / seconds if seconds else math.nan
    if hot > THROTTLED_SHARE:
        found.append(f"throttled (thermal) for {100 * hot:.1f} % of the window")
    if seen.get("slowdown_samples"):
        found.append(f"slowed down by heat or hardware in {_of_readings(seen, 'slowdown_samples')}")
    moved = _clock_moved(seen)
    if moved and _capped_share(cost) < MOSTLY:  # a board at its power limit holds power, not clocks
        found.append(moved)
    if seen.get("foreign_pids"):
        found.append(f"foreign processes on the GPU: {', '.join(map(str, seen['foreign_pids']))}")
    lost = _number(reading.get("unmeasured_s"))
    if lost > UNMEASURED_SHARE * seconds:
        found.append(f"{lost:.1f} s of {seconds:.1f} s unmeasured")
    apart = abs(_number(reading.get("cross_rel_diff")))
    if apart > DISAGREEMENT:
        found.append(f"counter and samples disagree by {100 * apart:.1f} %")
    return "; ".join(found)


def noted(cost: Cost) -> str:
    """What a reader should know about a window that counts; empty where there is nothing."""
    seen = cost.reading.get("provenance") or {}
    found: list[str] = []
    share = _capped_share(cost)
    if share:
        found += filter(None, (f"at its power limit for {100 * share:.0f} % of the window", _clock_moved(seen)))
    if seen.get("resident_pids"):
        found.append(f"on the GPU since before this process: {', '.join(map(str, seen['resident_pids']))}")
    if seen.get("hidden_pids"):
        found.append(f"processes on the GPU that cannot be told from ours: {seen['hidden_pids']}")
    return "; ".join(found)


def _capped_share(cost: Cost) -> float:
    """The share of the window at the board's power limit, by the driver's total, or else by the readings.

    It is 0 where it is below one percent or unknown.
    """
    seen = cost.reading.get("provenance") or {}
    seconds = cost.seconds * cost.n
    counted = _number(seen.get("throttle_power_ns")) / 1e9 / seconds if seconds else math.nan
    read = _number(seen.get("capped_samples")) / (_number(seen.get("slow_samples")) or math.nan)
    share = max((value for value in (counted, read) if math.isfinite(value)), default=0.0)
    return min(1.0, share) if share > THROTTLED_SHARE else 0.0


def _clock_moved(seen: Mapping[str, Any]) -> str:
    low, high, middle = (_number(seen.get(f"sm_clock_mhz_p{p}")) for p in (5, 95, 50))
    moved = bool(middle) and (high - low) / middle > CLOCK_SPREAD
    return f"SM clock moved from {low:.0f} to {high:.0f} MHz" if moved else ""


def _of_readings(seen: Mapping[str, Any], name: str) -> str:
    return f"{seen[name]} of {seen.get('slow_samples', '?')} readings"


def settled(warm: Sequence[Cost]) -> bool:
    """Whether the last three windows of a warm-up are steady: power within 1 %, temperature within 1 C in 30 s.

    A device without those readings (an estimate, an old driver) counts as steady after three windows.
    """
    if len(warm) < 3:
        return False
    last = warm[-3:]
    watts = [cost.joules / cost.seconds for cost in last if cost.seconds > 0 and math.isfinite(cost.joules)]
    estimated = is_estimate(last[-1].source)
    if not estimated and len(watts) == 3 and max(watts) - min(watts) > SETTLED_POWER * sum(watts) / 3:
        return False
    seen = [cost.reading.get("provenance") or {} for cost in last]
    rise = _number(seen[-1].get("temp_end_c")) - _number(seen[0].get("temp_start_c"))
    span_s = sum(cost.seconds * cost.n for cost in last)
    return not (span_s > 0 and abs(rise) * 30 / span_s > SETTLED_C_PER_30_S)


def total(costs: Sequence[Cost], name: str) -> float:
    """The sum of a reading's number over windows; NaN where one window lacks it."""
    return math.fsum(_number(cost.reading.get(name)) for cost in costs) if costs else math.nan


def most_disturbed(costs: Sequence[Cost]) -> dict[str, Any]:
    """`own_cores` and `others_cores` of the window in which other processes used the processor most."""
    known = [cost for cost in costs if not math.isnan(_number(cost.reading.get("others_cores")))]
    most = max(known, key=lambda cost: _number(cost.reading.get("others_cores")), default=costs[-1])
    return {name: most.reading.get(name) for name in ("own_cores", "others_cores")}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def plain(cost: Cost, rejected: str) -> Mapping[str, Any]:
    """A window as plain data for the record: per call, with the provenance that differs between windows."""
    seen = cost.reading.get("provenance") or {}
    kept = ("sm_clock_mhz_p50", "temp_start_c", "temp_end_c", "counter_ticks", "aligned", "event_reasons")
    numbers = {"joules": cost.joules, "ci95_joules": cost.ci95_joules, "seconds": cost.seconds}
    return {
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "n": cost.n,
        "grade": cost.grade,
        "reason": cost.reason,
        "rejected": rejected,
        "noted": noted(cost),
        **{name: seen[name] for name in kept if name in seen},
    }
