"""Host energy from RAPL's powercap files: package and DRAM, wrap-safe, nested zones never summed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PLAUSIBLE_W = 5000.0
"""No package draws this much: a larger step is a reset or a missed wrap, not energy."""


def _read_int(path: Path) -> int:
    return int(path.read_text())


@dataclass
class Zone:
    """One RAPL counter, unwrapped: `joules` only grows. `fault` says why it can no longer be trusted."""

    name: str
    path: Path
    range_uj: int | None
    joules: float = 0.0
    fault: str = ""
    last_uj: int = -1
    last_ns: int = 0

    def read(self, now_ns: int) -> float:
        """Joules since the first read; NaN after a fault. Must be called before the counter can wrap twice."""
        if self.fault:
            return math.nan
        try:
            now_uj = _read_int(self.path / "energy_uj")
        except (OSError, ValueError) as error:
            self.fault = f"{self.name}: {type(error).__name__} while reading energy_uj"
            return math.nan
        if self.last_uj >= 0:
            self._advance(now_uj, now_ns)
        self.last_uj, self.last_ns = now_uj, now_ns
        return math.nan if self.fault else self.joules

    def _advance(self, now_uj: int, now_ns: int) -> None:
        step_uj = now_uj - self.last_uj
        if step_uj < 0:
            if self.range_uj is None:
                self.fault = (
                    f"{self.name}: the counter fell back, and without max_energy_range_uj a wrap cannot be undone"
                )
                return
            step_uj += self.range_uj
        seconds = max((now_ns - self.last_ns) / 1e9, 1e-3)
        if step_uj < 0 or step_uj / 1e6 / seconds > PLAUSIBLE_W:
            self.fault = f"{self.name}: a step of {step_uj / 1e6:.0f} J in {seconds:.3f} s is no energy (reset?)"
            return
        self.joules += step_uj / 1e6


TICK_S = 0.001
"""RAPL renews its counters once a millisecond."""


class Packages:
    """The package zones as one meter."""

    grade = "R"
    tick_s = TICK_S
    relative_sd = 0.0

    def __init__(self, zones: tuple[Zone, ...], now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.zones = zones
        self._now_ns = now_ns
        self.source = "rapl:" + "+".join(zone.name for zone in zones)

    def read(self) -> float:
        """Joules since the first read; NaN if any zone failed."""
        return read_zones(self.zones, self._now_ns())

    @property
    def fault(self) -> str:
        """Why it gives NaN; empty while all is well."""
        return zone_faults(self.zones)


@dataclass(frozen=True)
class Rapl:
    """The zones to sum. `package` holds packages (or psys where there is no package); `dram` the memory beside them."""

    package: tuple[Zone, ...]
    dram: tuple[Zone, ...]
    reason: str = ""
    dram_reason: str = ""

    @property
    def source(self) -> str:
        """The zones by name: 'rapl:package-0+package-1'."""
        return "rapl:" + "+".join(zone.name for zone in self.package) if self.package else ""

    @property
    def dram_source(self) -> str:
        """The memory's zones by name: 'rapl:dram-0'."""
        return "rapl:" + "+".join(zone.name for zone in self.dram) if self.dram else ""


def _zone(folder: Path, name: str) -> tuple[Zone | None, str]:
    """The zone if its counter can be read now, else why not."""
    try:
        _read_int(folder / "energy_uj")
    except PermissionError:
        return (
            None,
            f"{name}: permission denied on energy_uj (run `sudo chmod -R a+r /sys/class/powercap` or run as root)",
        )
    except (OSError, ValueError) as error:
        return None, f"{name}: {type(error).__name__} on energy_uj"
    try:
        range_uj: int | None = _read_int(folder / "max_energy_range_uj")
    except (OSError, ValueError):
        range_uj = None
    return Zone(name, folder, range_uj), ""


def _named(root: Path, pattern: str) -> list[tuple[str, Path]]:
    found = []
    for folder in sorted(root.glob(pattern)):
        try:
            found.append(((folder / "name").read_text().strip(), folder))
        except OSError:
            continue
    return found


def open_rapl(root: Path = POWERCAP) -> Rapl:
    """The zones that can be read under `root`; an empty `Rapl` with its reason where there is none.

    Only top-level `intel-rapl:N` counts (AMD uses the same names): `intel-rapl-mmio:N` shows the same package a second
    time, `core` and `uncore` lie inside their package, and `psys` contains packages, so it stands in only where no
    package can be read.
    """
    if not root.is_dir():
        return Rapl((), (), f"{root} does not exist (virtual machine, container, or no RAPL driver)")
    tops = _named(root, "intel-rapl:[0-9]*")
    tops = [(name, folder) for name, folder in tops if folder.name.count(":") == 1]
    if not tops:
        return Rapl((), (), f"{root} has no zones (virtual machine?)")
    zones: list[Zone] = []
    problems: list[str] = []
    wanted = [(n, f) for n, f in tops if n.startswith("package")] or [(n, f) for n, f in tops if n == "psys"]
    for name, folder in wanted:
        zone, why = _zone(folder, name)
        if zone is None:
            problems.append(why)
        else:
            zones.append(zone)
    if problems or not zones:  # half of the sockets is no measurement of the host
        return Rapl((), (), "; ".join(problems) or f"{root} has neither a package nor a psys zone")
    dram, why_no_dram = _open_dram(wanted)
    return Rapl(tuple(zones), dram, "", why_no_dram)


def _open_dram(packages: list[tuple[str, Path]]) -> tuple[tuple[Zone, ...], str]:
    """The memory zones inside the packages (or beside them), each once; all of them or none."""
    zones: list[Zone] = []
    for number, (_, folder) in enumerate(packages):
        nested = {
            f.resolve(): (n, f)
            for n, f in _named(folder, f"{folder.name}:[0-9]*") + _named(folder.parent, f"{folder.name}:[0-9]*")
        }
        for name, path in nested.values():
            if name != "dram":
                continue
            zone, why = _zone(path, f"dram-{number}")
            if zone is None:
                return (), why
            zones.append(zone)
    return tuple(zones), "" if zones else "RAPL shows no dram zone on this platform"


def read_zones(zones: tuple[Zone, ...], now_ns: int) -> float:
    """Joules of all zones since their first read; NaN if any of them failed, because half a host is no reading."""
    return math.fsum([zone.read(now_ns) for zone in zones]) if zones else math.nan


def zone_faults(zones: tuple[Zone, ...]) -> str:
    """Why `read_zones` gives NaN, in one line; empty while all is well."""
    return "; ".join(zone.fault for zone in zones if zone.fault)
