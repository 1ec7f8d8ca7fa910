"""Which device is measured, what it is called, and which meter it offers. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.energy import estimate
from benchmark.energy.nvml import POWER_SOURCES, Gpu, Nvml, NvmlError, load_nvml
from benchmark.energy.rapl import POWERCAP, open_rapl
from benchmark.errors import UserError


class DeviceError(UserError, RuntimeError):
    """A device that was asked for is not to be had; the message names the cause and the remedy."""


@dataclass(frozen=True)
class Device:
    """One device to measure: a GPU ('cuda') or the host's CPU ('cpu').

    `torch_name` counts among *visible* devices, as torch does; `nvml_index` among all. `source` is the best meter,
    `grade_best` the best grade it can reach, `why_not_better` one line for each better source that is not to be had.
    `power_limit_w` is None on a CPU.
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
    identity: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    gpu: Gpu | None = field(default=None, compare=False, repr=False)

    @property
    def machine(self) -> str:
        """A folder name for records of this hardware: 'nvidia-h200-700w', 'cpu-amd-epyc-2c'."""
        if self.kind == "cpu":
            return slug(f"cpu {_short_cpu(self.name)} {os.cpu_count() or 1}c")
        limit = f" {self.power_limit_w:.0f}w" if self.power_limit_w else ""
        return slug(f"{self.name}{' mig' if self.mig else ''}{limit}")


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


def _visible(nvml: Nvml, setting: str | None) -> list[_Visible]:
    """What CUDA would show under CUDA_VISIBLE_DEVICES: the list ends at the first entry that names nothing, as CUDA's
    does."""
    gpus = nvml.gpus()
    if setting is None:
        return [_Visible(gpu) for gpu in gpus]
    uuids = {str(gpu.identity()["uuid"]): gpu for gpu in gpus}
    found: list[_Visible] = []
    for entry in (word.strip() for word in setting.split(",")):
        if entry.startswith("MIG-"):
            parent = nvml.mig_parent(entry)
            found.append(_Visible(None if parent is None else gpus[parent], entry))
        elif entry.startswith("GPU-"):
            matches = [gpu for uuid, gpu in uuids.items() if uuid.startswith(entry)]
            if len(matches) != 1:
                break
            found.append(_Visible(matches[0]))
        elif entry.isdigit() and int(entry) < len(gpus):
            found.append(_Visible(gpus[int(entry)]))
        else:
            break
    return found


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
    if entry.gpu is None or mig:
        meter = ("", "X", ("nvml: a MIG slice has no power or energy reading of its own: use a whole GPU",))
    else:
        meter = _best_meter(entry.gpu)
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
    """The host's CPU, with RAPL where it can be read and the estimate elsewhere."""
    rapl = open_rapl(powercap)
    name = estimate.cpu_name()
    if rapl.package:
        source, grade = rapl.source, "R"
    else:
        source, grade = estimate.SOURCE, "E"
        why = (*why, f"rapl: {rapl.reason}")
    return Device("cpu", "cpu", name, f"cpu-{slug(name)}", "", None, None, source, grade, why)


def find_device(wish: str = "auto", *, nvml: Nvml | None = None, powercap: Path = POWERCAP) -> Device:
    """The device for a wish: 'auto', 'cpu', 'cuda', 'cuda:1' or 'GPU-<uuid or its beginning>'.

    'auto' is the first visible GPU, else the CPU. CUDA_VISIBLE_DEVICES is honoured (indices, UUIDs, empty, MIG). A GPU
    that was asked for and is not there raises DeviceError. NVML counts in PCI order; set CUDA_DEVICE_ORDER=PCI_BUS_ID
    on machines with unlike GPUs.
    """
    if wish == "cpu":
        return cpu_device(("nvml: not asked, the CPU was chosen",), powercap)
    if wish != "auto" and not re.fullmatch(r"cuda(:\d+)?|(GPU|MIG)-.+", wish):
        raise DeviceError(f"unknown device {wish!r}: say auto, cpu, cuda, cuda:N or GPU-<uuid>")
    visible, why = _find_visible(nvml)
    if why and wish == "auto":
        return cpu_device((why,), powercap)
    if why:
        raise DeviceError(
            f"{wish} was asked for, but {why}. Use device=cpu, or install the driver and show the GPU to this process."
        )
    library = nvml or load_nvml()
    for position, entry in enumerate(visible):
        if _matches(wish, position, entry):
            return _gpu_device(library, position, entry)
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    raise DeviceError(
        f"{wish} was asked for, but {len(visible)} GPU(s) are visible (CUDA_VISIBLE_DEVICES={shown!r}). "
        f"Choose one of cuda:0 .. cuda:{len(visible) - 1}, or change CUDA_VISIBLE_DEVICES."
    )


def _find_visible(nvml: Nvml | None) -> tuple[list[_Visible], str]:
    """The visible GPUs, or why there are none."""
    try:
        library = nvml or load_nvml()
        visible = _visible(library, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except NvmlError as error:
        return [], f"nvml: {error}"
    if visible:
        return visible, ""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        [],
        "nvml: the driver shows no GPU" if shown is None else f"nvml: CUDA_VISIBLE_DEVICES={shown!r} hides every GPU",
    )


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
