"""What two calculators on the web would say: arithmetic on the device's facts, no meter.

* Green Algorithms: Lannelongue, Grealey, Inouye, Advanced Science 2021, 2100707, doi:10.1002/advs.202100707; constants
  as in its own data, version 2.2 (github.com/GreenAlgorithms/green-algorithms-tool).
* Machine Learning Emissions Calculator: Lacoste, Luccioni, Schmidt, Dandres 2019, arXiv:1910.09700; rated power as in
  its own list (github.com/mlco2/impact, data/gpus.csv).
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from benchmark.energy import Device
from benchmark.run.peers.told import Told

W_PER_CORE = 12.0
"""Green Algorithms' core of a CPU that is not in its list ("Any")."""
W_PER_GB = 0.3725
PUE = 1.67
"""Its data centre of unknown efficiency: the world's mean of 2019."""
LISTED_CPU_W = {
    "Xeon E5-2699": 145.0, "Xeon E5-2630 v4": 85.0, "Xeon E5-2650": 105.0, "Xeon Gold 5220": 125.0,
    "Xeon Gold 6148": 150.0, "EPYC 7763": 280.0,
}  # fmt: skip  # one value a line would hide that these are all
"""The CPUs of the emissions calculator, with its watts of the whole package. It has no other, and asks for no watts."""


@dataclass(frozen=True)
class Facts:
    """What the calculators ask for: the device, `seconds` of work, share of the `cores` in use, `memory_gb` (2^30)."""

    device: Device
    seconds: float
    usage: float
    cores: int
    memory_gb: float


def facts_of(device: Device, seconds: float, cpu_seconds: float) -> Facts:
    """The facts of this machine after so many seconds of work that took so much CPU time."""
    cores = os.cpu_count() or 1
    usage = min(1.0, cpu_seconds / (cores * seconds)) if seconds > 0 else 0.0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Facts(device, seconds, usage, cores, memory)


def green_algorithms_wh(seconds: float, cores_w: float, memory_gb: float, pue: float = PUE) -> float:
    """Energy in W h: runtime x (power of the cores in use + memory x 0.3725 W) x PUE."""
    return seconds / 3600 * (cores_w + memory_gb * W_PER_GB) * pue


def emissions_calculator_wh(seconds: float, rated_w: float) -> float:
    """Energy in W h: rated power x time."""
    return rated_w * seconds / 3600


def green_algorithms(facts: Facts) -> Told:
    """Green Algorithms of these facts; a GPU counts whole, with the CPU cores in use beside it."""
    cores_w = facts.cores * W_PER_CORE * facts.usage
    terms = [f"{facts.cores} cores x {W_PER_CORE:g} W ('Any') x {facts.usage:.2f} in use"]
    limit = facts.device.power_limit_w
    if facts.device.kind == "cuda" and not limit:
        return Told("Green Algorithms", "2.2", math.nan, "", f"the rated power of {facts.device.name} is unknown")
    if limit:
        cores_w += limit
        terms.append(f"GPU {limit:g} W")
    terms.append(f"{facts.memory_gb:.1f} GB x {W_PER_GB} W")
    wh = green_algorithms_wh(facts.seconds, cores_w, facts.memory_gb)
    how = f"formula: runtime x ({' + '.join(terms)}) x a PUE of {PUE}; without PUE {wh / PUE:.3g} W h"
    return Told("Green Algorithms", "2.2", wh, how, seconds=facts.seconds)


def emissions_calculator(facts: Facts) -> Told:
    """The ML CO2 calculator of these facts: a GPU's power limit, or the watts of a CPU that it lists."""
    tool = ("ML CO2 calculator", "2019")
    device = facts.device
    rated = device.power_limit_w if device.kind == "cuda" else listed_w(device.name)
    if not rated:
        return Told(*tool, math.nan, "", f"it lists {len(LISTED_CPU_W)} CPUs by name, and not {device.name!r}")
    how = f"formula: rated {rated:g} W x time, as if under full load all the time; nothing else"
    return Told(*tool, emissions_calculator_wh(facts.seconds, rated), how, seconds=facts.seconds)


def listed_w(name: str) -> float | None:
    """The calculator's watts of a CPU by its kernel's name; None where it does not list it."""
    bare = re.sub(r"[^a-z0-9]", "", re.sub(r"\((R|TM|tm|r)\)|CPU|Processor", " ", name).lower())
    return next((watts for cpu, watts in LISTED_CPU_W.items() if re.sub(r"[^a-z0-9]", "", cpu.lower()) in bare), None)
