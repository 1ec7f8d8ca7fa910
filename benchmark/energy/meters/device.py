"""Which device is measured, what it is called, and which meter it offers. Torch-free."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.energy.meters import estimate
from benchmark.energy.meters.nvml import POWER_SOURCES, Gpu, Nvml, NvmlError, load_nvml
from benchmark.energy.meters.rapl import POWERCAP, open_rapl
from benchmark.errors import UserError

NO_METER = (
    "nvml: a MIG slice has no power or energy reading of its own: use a whole GPU "
    "(beside a slice CUDA shows none: name it alone in CUDA_VISIBLE_DEVICES)"
)


class DeviceError(UserError, RuntimeError):
    """A device that was asked for cannot be used; the message names the cause and the remedy."""


@dataclass(frozen=True)
class Device:
    """One device to measure: a GPU ('cuda') or the host's CPU ('cpu').

    `torch_name` counts among *visible* devices, as torch does; `nvml_index` among all. `source` is the best meter,
    `grade_best` the best grade it can reach, `why_not_better` one line for each better source that cannot be used.
    `power_limit_w` is None on a CPU, `threads` (how many a stage must use) on a GPU.
    """

    kind: str
    torch_name: str
    name: str
    uuid: str
    driver: str
    power_limit_w: float | None
    nvml_index: int | None
    source: str
    grade_best: str
    why_not_better: tuple[str, ...] = ()
    mig: bool = False
    threads: int | None = None
    identity: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    gpu: Gpu | None = field(default=None, compare=False, repr=False)

    @property
    def machine(self) -> str:
        """A folder name for records of this hardware: 'nvidia-h200-700w', 'cpu-amd-epyc-2c', or with other threads than
        cores 'cpu-amd-epyc-2c-1t': an image costs another energy then."""
        if self.kind == "cpu":
            cores = os.cpu_count() or 1
            threads = f" {self.threads}t" if self.threads not in (None, cores) else ""
            return slug(f"cpu {_short_cpu(self.name)} {cores}c{threads}")
        limit = f" {self.power_limit_w:.0f}w" if self.power_limit_w else ""
        return slug(f"{self.name}{' mig' if self.mig else ''}{limit}")


def cpu_threads() -> int:
    """How many threads a stage on the CPU must use: OMP_NUM_THREADS if it is set, else the cores this process may use.

    The caller must set its libraries to this number (benchmark.run.process.ready does).
    """
    setting = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    if setting is not None and int(setting[1]) > 0:
        return int(setting[1])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slug(words: str) -> str:
    """Lower case a-z, 0-9 and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _short_cpu(name: str) -> str:
    """The model name without trademarks, clock rate and core count."""
    name = re.sub(r"\((R|TM|tm|r)\)|CPU|Processor|@.*$|\d+-Core", " ", name)
    return name.strip() or "unknown"


@dataclass(frozen=True)
class _Visible:
    """An entry of the list of visible GPUs: the GPU, or a MIG slice of it."""

    gpu: Gpu | None
    mig_uuid: str = ""

    @property
    def is_slice(self) -> bool:
        """Whether CUDA would show a MIG slice here."""
        return bool(self.mig_uuid) or (self.gpu is not None and bool(self.gpu.identity().get("mig")))


def _visible(nvml: Nvml, setting: str | None) -> list[_Visible]:
    """What CUDA would show under CUDA_VISIBLE_DEVICES, in its order.

    CUDA shows one MIG slice at most, and no whole GPU beside it (NVIDIA, MIG user guide, CUDA device enumeration).
    """
    gpus, _ = _reachable(nvml)
    found = [_Visible(gpu) for gpu in gpus] if setting is None else _named(nvml, gpus, setting)
    return next(([entry] for entry in found if entry.is_slice), found)


def _reachable(nvml: Nvml) -> tuple[list[Gpu], list[str]]:
    """(the GPUs that answer, a line about each that does not). CUDA counts those that answer."""
    answering: list[Gpu] = []
    dead = []
    for gpu in nvml.gpus():
        try:
            gpu.identity()
        except NvmlError as error:
            dead.append(f"the GPU of NVML index {gpu.index} does not answer ({error}) and is left out")
        else:
            answering.append(gpu)
    return answering, dead


def _named(nvml: Nvml, gpus: Sequence[Gpu], setting: str) -> list[_Visible]:
    """What the entries of CUDA_VISIBLE_DEVICES name, up to the first that names no GPU or several; nothing at all where
    two name the same."""
    entries = _entries(setting)
    if setting.startswith("MIG-"):
        parents = [_slice_parent(nvml, gpus, entry) for entry in entries]
        return [_Visible(None if n is None else gpus[n], entry) for n, entry in zip(parents, entries, strict=True)]
    places: list[int] = []
    for entry in entries:
        matches = _places_of(entry, gpus)
        if len(matches) != 1:
            break
        if matches[0] in places:
            return []
        places += matches
    return [_Visible(gpus[place]) for place in places]


def _entries(setting: str) -> list[str]:
    """The entries as CUDA and torch read them: all of the first one's kind (UUIDs, MIG slices, or numbers, of which the
    leading digits count), up to the first that is not; none where one comes twice."""
    kind = next((prefix for prefix in ("GPU-", "MIG-") if setting.startswith(prefix)), "")
    found: list[str] = []
    for word in setting.split(","):
        number = re.match(r"\+?([0-9]+)", word.strip())
        entry = word if kind else str(int(number[1])) if number else ""
        if entry and entry in found:
            return []
        if not entry.startswith(kind) or not entry:
            return found
        found.append(entry)
    return found


def _places_of(entry: str, gpus: Sequence[Gpu]) -> list[int]:
    """The GPUs that a number, or the beginning of a UUID, may mean."""
    if entry.startswith("GPU-"):
        return [place for place, gpu in enumerate(gpus) if str(gpu.identity()["uuid"]).startswith(entry)]
    return [int(entry)] if int(entry) < len(gpus) else []


def _slice_parent(nvml: Nvml, gpus: Sequence[Gpu], entry: str) -> int | None:
    """The GPU that a MIG slice is part of: named in the older form MIG-GPU-<uuid>/<instance>/<compute instance>, else
    known to NVML."""
    whole = entry.removeprefix("MIG-").partition("/")[0]
    if whole.startswith("GPU-"):
        matches = _places_of(whole, gpus)
        return matches[0] if len(matches) == 1 else None
    return nvml.mig_parent(entry)


def _supports(call: Callable[..., object], *args: object) -> str:
    """Empty if the call answers, else why not."""
    try:
        call(*args)
    except NvmlError as error:
        return f"{error}"
    return ""


def _best_meter(gpu: Gpu) -> tuple[str, str, tuple[str, ...]]:
    """(source, best grade, why nothing better) of a whole GPU."""
    why: list[str] = []
    reason = _supports(gpu.energy_mj)
    if not reason:
        return "nvml:counter", "A", ()
    why.append(f"nvml:counter: {reason} (the energy counter needs Volta or newer)")
    reason = _supports(gpu.power_samples, 0)
    if not reason:
        return "nvml:samples", "C", tuple(why)
    why.append(f"nvml:samples: {reason}")
    for source in POWER_SOURCES:
        reason = _supports(gpu.power_mw, source)
        if not reason:
            return f"nvml:{source}", "D", tuple(why)
        why.append(f"nvml:{source}: {reason}")
    return "", "X", tuple(why)


def _gpu_device(nvml: Nvml, position: int, entry: _Visible) -> Device:
    meter: tuple[str, str, tuple[str, ...]]
    identity: dict[str, Any] = (
        entry.gpu.identity() if entry.gpu is not None else {"name": "MIG slice", "uuid": entry.mig_uuid}
    )
    versions = nvml.versions()
    mig = bool(entry.mig_uuid) or bool(identity.get("mig"))
    meter = ("", "X", (NO_METER,)) if entry.gpu is None or mig else _best_meter(entry.gpu)
    return Device(
        kind="cuda",
        torch_name=f"cuda:{position}",
        name=str(identity["name"]),
        uuid=entry.mig_uuid or str(identity["uuid"]),
        driver=versions["driver"],
        power_limit_w=identity.get("power_limit_w"),
        nvml_index=entry.gpu.index if entry.gpu is not None else None,
        source=meter[0],
        grade_best=meter[1],
        why_not_better=meter[2],
        mig=mig,
        identity={**identity, **versions},
        gpu=entry.gpu,
    )


def cpu_device(why: tuple[str, ...] = (), powercap: Path = POWERCAP) -> Device:
    """The host's CPU, with RAPL where it can be read and the estimate elsewhere. Raises DeviceError where there is no
    Linux, for what child processes use would be missed there."""
    if sys.platform != "linux":
        raise DeviceError(
            f"this system ({sys.platform}) is not supported: energy is read from Linux's powercap, or estimated from "
            "its /proc. Run it on Linux, in WSL or in a Linux container."
        )
    rapl = open_rapl(powercap)
    name = estimate.cpu_name()
    if rapl.package:
        source, grade = rapl.source, "R"
    else:
        source, grade = estimate.SOURCE, "E"
        why = (*why, f"rapl: {rapl.reason}")
    return Device("cpu", "cpu", name, f"cpu-{slug(name)}", "", None, None, source, grade, why, threads=cpu_threads())


def find_device(wish: str = "auto", *, nvml: Nvml | None = None, powercap: Path = POWERCAP) -> Device:
    """The device for a wish: 'auto', 'cpu', 'cuda', 'cuda:1' or 'GPU-<uuid or its beginning>'.

    'auto' is the first visible GPU that answers, else the CPU (but where there are GPUs and none answers, DeviceError).
    GPUs that do not answer are left out, and named in `why_not_better`. CUDA_VISIBLE_DEVICES is honoured (indices,
    UUIDs or their beginnings, empty, MIG). A GPU that was asked for and is not there raises DeviceError. NVML counts in
    PCI order: on machines with unlike GPUs set CUDA_DEVICE_ORDER=PCI_BUS_ID before CUDA is initialised
    (benchmark.run.process.ready does).
    """
    if wish == "cpu":
        return cpu_device(("nvml: not asked, the CPU was chosen",), powercap)
    if wish != "auto" and not re.fullmatch(r"cuda(:\d+)?|(GPU|MIG)-.+", wish):
        raise DeviceError(f"unknown device {wish!r}: say auto, cpu, cuda, cuda:N or GPU-<uuid>")
    found = _find_visible(nvml)
    if found.why and wish == "auto" and not found.dead:
        return cpu_device((found.why,), powercap)
    dead = "; ".join(found.dead)
    if found.why:
        why = f"{found.why}; {dead}" if dead else found.why
        raise DeviceError(
            f"{_asked(wish)} was asked for, but {why}. Say cpu (hardware=cpu) to run without a GPU; or mend the "
            "driver, and show the GPU to this process."
        )
    library = nvml or load_nvml()
    for position, entry in enumerate(found.visible):
        if _matches(wish, position, entry):
            device = _gpu_device(library, position, entry)
            return replace(device, why_not_better=(*device.why_not_better, *found.dead))
    shown, count = os.environ.get("CUDA_VISIBLE_DEVICES"), len(found.visible)
    seen = f"CUDA_VISIBLE_DEVICES={shown!r}{dead and '; ' + dead}"
    raise DeviceError(
        f"{_asked(wish)} was asked for, but {count} GPU(s) are visible ({seen}). Choose one of cuda:0 .. "
        f"cuda:{count - 1}, or change CUDA_VISIBLE_DEVICES."
    )


def _asked(wish: str) -> str:
    return "a GPU (hardware=gpu, or cuda)" if wish == "cuda" else wish


class _Found(NamedTuple):
    """The visible GPUs, or why there are none; and a line about each that does not answer."""

    visible: list[_Visible]
    why: str
    dead: tuple[str, ...] = ()


def _find_visible(nvml: Nvml | None) -> _Found:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        library = nvml or load_nvml()
        visible = _visible(library, shown)
        answering, dead = _reachable(library)
    except NvmlError as error:
        return _Found([], f"nvml: {error}")
    if visible:
        return _Found(visible, "", tuple(dead))
    if dead and not answering:
        return _Found([], "nvml: no GPU of this machine answers", tuple(dead))
    hidden = (
        "nvml: the driver shows no GPU" if shown is None else f"nvml: CUDA_VISIBLE_DEVICES={shown!r} hides every GPU"
    )
    return _Found([], hidden)


def _matches(wish: str, position: int, entry: _Visible) -> bool:
    if wish in ("auto", "cuda"):
        return position == 0
    if wish.startswith("cuda:"):
        return position == int(wish[5:])
    if entry.mig_uuid:
        return entry.mig_uuid.startswith(wish)
    return entry.gpu is not None and str(entry.gpu.identity()["uuid"]).startswith(wish)


def find_devices(wishes: list[str], *, nvml: Nvml | None = None) -> tuple[Device, ...]:
    """Several devices at once, each only once (DeviceError on a repetition)."""
    devices = tuple(find_device(wish, nvml=nvml) for wish in wishes)
    if len({device.uuid for device in devices}) != len(devices):
        raise DeviceError(f"{wishes} name one device twice")
    return devices
