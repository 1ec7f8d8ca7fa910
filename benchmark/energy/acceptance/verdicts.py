"""The rest of the meter's test: what the board says of itself, aliasing, idle, plausibility, and Zeus beside it."""

from __future__ import annotations

import importlib
import importlib.util
import math
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmark.energy.acceptance.trials import (
    DISAGREE,
    OVER_LIMIT,
    Trial,
    Verdict,
    Word,
    additivity,
    counter,
    fault,
    judge,
    linearity,
    overhead,
    relative_ci,
    repeatability,
)
from benchmark.energy.meters.sensors import sensor_for

SMI_CALLS = 5
SHIFT_EVERY = 4
"""Bursts between two shifts of the square load's phase."""


def probed(trial: Trial) -> Iterator[Verdict]:
    """What the probe found, as facts."""
    facts = trial.facts
    if not facts.get("power_fields"):
        yield Verdict("probe", "SKIPPED", "; ".join(facts.get("notes", ())) or "was not probed", blocking=False)
        return
    ring, field = facts["samples"], facts["power_fields"]["power.instant"]
    told = {
        "tick ms": facts["counter_tick_ms"],
        "T ms": field["period_ms"],
        "W ms (table)": field["table_W_ms"],
        "samples kept": ring.get("length", 0),
        "field 191": facts["energy_field_191"],
        **{f"{name} us": cost for name, cost in facts["call_us"].items() if cost is not None},
    }
    words = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in told.items()]
    yield Verdict("probe", "INFO", ", ".join(words), told, blocking=False)


def nvidia_smi(trial: Trial) -> Iterator[Verdict]:
    """What one query of the 2021 tracer takes: it bounds that tracer's period."""
    check = "nvidia-smi -q -x"
    if shutil.which("nvidia-smi") is None:
        yield Verdict(check, "SKIPPED", "there is no nvidia-smi", blocking=False)
        return
    lasted = []
    for _ in range(SMI_CALLS):
        began = time.monotonic()
        done = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, check=False, timeout=30)
        lasted.append(time.monotonic() - began)
    text = f"median {1000 * statistics.median(lasted):.0f} ms, {len(done.stdout)} bytes"
    yield Verdict(check, "INFO", text, {"seconds": lasted, "bytes": len(done.stdout)}, blocking=False)


def aliasing(trial: Trial) -> Iterator[Verdict]:
    """A 50/50 load whose period is the sensor's: in step with it, and with its phase shifted now and then."""
    load = trial.loads["matmul"]
    sensor = sensor_for(trial.device.identity, "power.instant")
    field = trial.facts.get("power_fields", {}).get("power.instant", {})
    period_s = (field.get("period_ms") or 1000 * sensor.period_s) / 1000
    burst = trial.steps(load, period_s / 2)
    found = {}
    for shifted in (False, True):
        with trial.tracer() as tracer, tracer.window("square", step_period_s=None if shifted else period_s) as window:
            _square(trial, burst, period_s, shifted)
        found["shifted" if shifted else "in step"] = window.reading
    if why := fault(list(found.values())):
        yield Verdict("aliasing", "FAIL", why, blocking=False)
        return
    flagged = bool(found["in step"].provenance["alias_flag"])
    coverage = min(1.0, sensor.window_s / period_s)
    blind = coverage < 0.9
    seen = f"the sensor sees {coverage:.0%} of the time"
    apart = {name: r.cross_rel_diff for name, r in found.items()}
    told = ", ".join(f"{name} {value:+.1%}" for name, value in apart.items())
    text = f"{'flagged' if flagged else 'not flagged'}, {seen}; trapezoid against counter: {told}"
    numbers = {"period_s": period_s, "flagged": flagged, "coverage": coverage, "relative": apart}
    yield Verdict("aliasing", "PASS" if flagged == blind else "FAIL", text, numbers, blocking=False)


def _square(trial: Trial, burst: int, period_s: float, shifted: bool) -> None:
    """Bursts on an absolute schedule of the period; shifted, every fourth starts a quarter period later still."""
    load, began, late_s, number = trial.loads["matmul"], time.monotonic(), 0.0, 0
    while time.monotonic() - began < trial.durations.alias_s:
        load.work(burst)
        number += 1
        late_s += period_s / 4 if shifted and number % SHIFT_EVERY == 0 else 0.0
        time.sleep(max(0.0, began + number * period_s + late_s - time.monotonic()))


def idle(trial: Trial) -> Iterator[Verdict]:
    """Idle power: bare and with a context as probed, and again now, after the work."""
    reading = trial.measure(trial.loads["idle"], trial.steps(trial.loads["idle"], trial.durations.idle_s))
    bare, context = trial.facts.get("idle_bare_w"), trial.facts.get("idle_context_w")
    if math.isnan(reading.joules):
        yield Verdict("idle", "FAIL", reading.reason)
        return
    words = [f"{name} {watts:.1f} W" for name, watts in (("bare", bare), ("with a context", context)) if watts]
    text = ", ".join([*words, f"after the work {reading.mean_power_w:.1f} W"])
    numbers = {"bare_w": bare, "context_w": context, "after_w": reading.mean_power_w}
    yield Verdict("idle", "INFO", text, numbers, blocking=False)


def sanity(trial: Trial) -> Iterator[Verdict]:
    """No load draws less than idle, nor more than the board's limit."""
    readings = [(name, r) for name, r in trial.readings if not math.isnan(r.joules)]
    rest = [r.mean_power_w for name, r in readings if name == "idle"]
    loaded = {f"{name} {number}": r.mean_power_w for number, (name, r) in enumerate(readings) if name != "idle"}
    if not loaded:
        yield Verdict("sanity", "FAIL", "no load has a mean power: " + fault([r for _, r in trial.readings]))
        return
    bare = trial.facts.get("idle_bare_w")
    least = min([watts for watts in (bare, *rest) if watts is not None], default=0.0)
    limit = trial.device.power_limit_w or math.inf
    low, high = min(loaded.values()), max(loaded.values())
    text = f"loads draw {low:.1f} to {high:.1f} W; idle {least:.1f} W, limit {limit:.0f} W x {OVER_LIMIT}"
    word: Word = "PASS" if least <= low and high <= limit * OVER_LIMIT else "FAIL"
    yield Verdict("sanity", word, text, {"mean_w": loaded, "idle_w": least, "limit_w": limit})


def alone(trial: Trial) -> Iterator[Verdict]:
    """No foreign process computed on the board meanwhile."""
    seen = [r.provenance for _, r in trial.readings]
    foreign, resident = (
        sorted({pid for each in seen for pid in each.get(f"{kind}_pids", ())}) for kind in ("foreign", "resident")
    )
    hidden = max((each.get("hidden_pids", 0) for each in seen), default=0)
    words = [f"foreign processes computed on the GPU: {foreign}" if foreign else "no foreign process was seen"]
    words += [f"there before our context: {resident}"] if resident else []
    words += [f"{hidden} that cannot be told from ours"] if hidden else []
    numbers = {"foreign_pids": foreign, "resident_pids": resident, "hidden_pids": hidden}
    yield Verdict("alone", "FAIL" if foreign else "PASS", "; ".join(words), numbers)


def zeus(trial: Trial) -> Iterator[Verdict]:
    """Our windows and Zeus's around the same work, where Zeus is installed."""
    check = "ours against Zeus"
    if importlib.util.find_spec("zeus") is None:
        yield Verdict(check, "SKIPPED", "zeus is not installed (pip install zeus)", blocking=False)
        return
    load = trial.loads["matmul"]
    steps = trial.steps(load, trial.durations.idle_s)
    monitor = importlib.import_module("zeus.monitor").ZeusMonitor(gpu_indices=[_torch_index(trial)])
    theirs, ours = [], []
    for _ in range(3):
        monitor.begin_window("check", sync_execution=False)
        ours.append(trial.measure(load, steps, align=False))
        theirs.append(float(monitor.end_window("check", sync_execution=False).total_energy))
    if why := fault(ours):
        yield Verdict(check, "FAIL", why, blocking=False)
        return
    apart = statistics.fmean(theirs) / statistics.fmean([r.joules for r in ours]) - 1
    # two reads of a counter that ticks every 100 ms are off by up to a tick each
    tick_s = (trial.facts.get("counter_tick_ms") or 100.0) / 1000
    ci = relative_ci(ours[0]) + 2 * tick_s / ours[0].seconds
    text = f"Zeus reports {apart:+.2%} of ours, ± {ci:.2%} for two ticks of the counter (5 %)"
    numbers = {"zeus_joules": theirs, "our_joules": [r.joules for r in ours]}
    yield Verdict(check, judge(apart, ci, DISAGREE), text, numbers, blocking=False)


def _torch_index(trial: Trial) -> int:
    return int(trial.device.torch_name.rpartition(":")[2])


CHECKS: Mapping[str, Callable[[Trial], Iterator[Verdict]]] = {
    "probe": probed,
    "smi": nvidia_smi,
    "counter": counter,
    "linearity": linearity,
    "additivity": additivity,
    "overhead": overhead,
    "aliasing": aliasing,
    "repeatability": repeatability,
    "zeus": zeus,
    "idle": idle,
    "sanity": sanity,
    "alone": alone,
}


def examine(
    trial: Trial, names: Sequence[str] = tuple(CHECKS), say: Callable[[Verdict], Any] = lambda _: None
) -> list[Verdict]:
    """Every named check in order; one that breaks is a failure of its own and stops no other."""
    found: list[Verdict] = []
    for name in names:
        try:
            for verdict in CHECKS[name](trial):
                found.append(verdict)
                say(verdict)
        except Exception as error:  # whatever a driver in trouble does: the other checks still run
            broken = Verdict(name, "FAIL", f"broke off: {type(error).__name__}: {error}")
            found.append(broken)
            say(broken)
    return found
