"""The one door to NVML: a small protocol, and its implementation on pynvml (imported only when it is used).

Everything above talks to `Gpu` and `Nvml`; a test replaces them by a fake on a virtual clock, or leaves them and
replaces the C library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
ErrorKind = Literal["unsupported", "lost", "absent", "denied", "other"]
PowerSource = Literal["power.instant", "power.usage", "power.instant.module"]
POWER_SOURCES: tuple[PowerSource, ...] = ("power.instant", "power.usage", "power.instant.module")
"""In order of trust: 25 to 100 ms windows before one-second averages; module scope (CPU and GPU together) only where
nothing else answers."""

_KINDS: dict[int, ErrorKind] = {
    3: "unsupported",
    4: "denied",
    9: "absent",
    12: "absent",
    13: "unsupported",
    15: "lost",
    16: "lost",
    25: "unsupported",
    28: "lost",
}
_NO_START = {
    9: "the NVIDIA driver is installed but not loaded (its kernel module is missing or does not fit)",
    12: "libnvidia-ml.so.1 not found: no NVIDIA driver",
}
_ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
}
_VIOLATIONS = {"power": 0, "thermal": 1, "board_limit": 3, "reliability": 5}
_FIELD_INSTANT, _FIELD_ENERGY = 186, 191
_SCOPE_GPU, _SCOPE_MODULE = 0, 1


class NvmlError(Exception):
    """An NVML call failed; `kind` says whether to fall down the ladder (unsupported), wait (other) or give the window
    up (lost)."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


@dataclass(frozen=True)
class Slow:
    """What is worth knowing once a second; None where the device does not say."""

    sm_clock_mhz: float | None = None
    mem_clock_mhz: float | None = None
    temp_c: float | None = None
    pstate: int | None = None
    event_reasons: int | None = None
    gpu_util_pct: float | None = None
    mem_util_pct: float | None = None
    compute_pids: tuple[int, ...] = ()
    throttle_ns: dict[str, int] = field(default_factory=dict)


class Gpu(Protocol):
    """One GPU. Every method may raise NvmlError; none may raise anything else."""

    index: int

    def identity(self) -> dict[str, Any]:
        """name, uuid, pci, arch, vbios, power_limit_w, persistence, ecc, mig: what does not change during a run (None
        where unknown)."""

    def energy_mj(self) -> int:
        """Millijoules since the driver was loaded (Volta or newer)."""

    def energy_field_mj(self) -> int:
        """The same from field 191 of newer drivers; undocumented, so only probed."""

    def power_mw(self, source: PowerSource) -> int:
        """Milliwatts from one of the power fields."""

    def power_samples(self, since_us: int) -> list[tuple[int, int]]:
        """The driver's ring buffer after `since_us`: (microseconds since 1970, milliwatts), oldest first."""

    def slow(self) -> Slow:
        """The once-a-second readings."""

    def reopen(self) -> None:
        """Initialise NVML again and look the device up again, by UUID."""


class Nvml(Protocol):
    """The library: how many devices there are, and which driver speaks."""

    def versions(self) -> dict[str, str]:
        """driver, nvml, and cuda_driver: the newest CUDA that the driver serves ('' where it does not say)."""

    def gpus(self) -> list[Gpu]:
        """Every device, in NVML's order (PCI bus); of one that cannot be reached, every method says why."""

    def mig_parent(self, uuid: str) -> int | None:
        """The NVML index of the GPU that a MIG slice is part of, by its whole name; None if unknown."""


def _call(function: Callable[..., T], *args: object) -> T:
    """Call into pynvml and translate its error into ours."""
    import pynvml

    try:
        return function(*args)
    except pynvml.NVMLError as error:
        raise NvmlError(_KINDS.get(getattr(error, "value", -1), "other"), str(error)) from error


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _maybe(call: Callable[[], T]) -> T | None:
    """The call's value, or None where the device does not give it."""
    try:
        return call()
    except NvmlError:
        return None


class PynvmlGpu:
    """A GPU through nvidia-ml-py."""

    def __init__(self, index: int) -> None:
        import pynvml

        self._n = pynvml
        self.index = index
        self._handle = _call(pynvml.nvmlDeviceGetHandleByIndex, index)
        self._uuid = _text(_call(pynvml.nvmlDeviceGetUUID, self._handle))

    def _get(self, name: str, *args: object) -> Any:
        return _call(getattr(self._n, name), self._handle, *args)

    def identity(self) -> dict[str, Any]:
        architecture = _maybe(lambda: self._get("nvmlDeviceGetArchitecture"))
        limit_mw = _maybe(lambda: self._get("nvmlDeviceGetEnforcedPowerLimit"))
        mig = _maybe(lambda: self._get("nvmlDeviceGetMigMode"))
        pci = _maybe(lambda: self._get("nvmlDeviceGetPciInfo"))
        ecc = _maybe(lambda: self._get("nvmlDeviceGetEccMode"))
        vbios = _maybe(lambda: self._get("nvmlDeviceGetVbiosVersion"))
        return {
            "name": _text(self._get("nvmlDeviceGetName")),
            "uuid": self._uuid,
            "pci": _text(pci.busId) if pci is not None else None,
            "arch": None if architecture is None else _ARCHITECTURES.get(architecture, f"nvml-{architecture}"),
            "vbios": None if vbios is None else _text(vbios),
            "power_limit_w": limit_mw / 1000 if limit_mw else None,
            "persistence": _maybe(lambda: self._get("nvmlDeviceGetPersistenceMode")),
            "ecc": ecc[0] if ecc else None,
            "mig": bool(mig[0]) if mig else False,
        }

    def energy_mj(self) -> int:
        return int(self._get("nvmlDeviceGetTotalEnergyConsumption"))

    def _field(self, field_id: int, scope: int) -> int:
        value = self._get("nvmlDeviceGetFieldValues", [(field_id, scope)])[0]
        if value.nvmlReturn != 0:
            raise NvmlError(
                _KINDS.get(value.nvmlReturn, "other"), f"field {field_id} scope {scope}: NVML error {value.nvmlReturn}"
            )
        members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
        if not 0 <= value.valueType < len(members):
            raise NvmlError("unsupported", f"field {field_id} scope {scope}: unknown value type {value.valueType}")
        return int(getattr(value.value, members[value.valueType]))

    def energy_field_mj(self) -> int:
        return self._field(_FIELD_ENERGY, _SCOPE_GPU)

    def power_mw(self, source: PowerSource) -> int:
        if source == "power.usage":
            return int(self._get("nvmlDeviceGetPowerUsage"))
        return self._field(_FIELD_INSTANT, _SCOPE_GPU if source == "power.instant" else _SCOPE_MODULE)

    def power_samples(self, since_us: int) -> list[tuple[int, int]]:
        try:
            value_type, samples = self._get("nvmlDeviceGetSamples", self._n.NVML_TOTAL_POWER_SAMPLES, since_us)
        except NvmlError as error:
            if "Not Found" in str(error):  # the ring holds nothing newer than `since_us`
                return []
            raise
        member = "uiVal" if value_type == self._n.NVML_VALUE_TYPE_UNSIGNED_INT else "ullVal"
        found = [(int(s.timeStamp), int(getattr(s.sampleValue, member))) for s in samples if s.timeStamp > since_us]
        return sorted(found)

    def slow(self) -> Slow:
        use = _maybe(lambda: self._get("nvmlDeviceGetUtilizationRates"))
        pids = _maybe(lambda: self._get("nvmlDeviceGetComputeRunningProcesses"))
        throttle: dict[str, int] = {}
        for name, policy in _VIOLATIONS.items():
            status = _maybe(partial(self._get, "nvmlDeviceGetViolationStatus", policy))
            if status is not None:
                throttle[name] = int(status.violationTime)
        return Slow(
            sm_clock_mhz=_maybe(lambda: self._get("nvmlDeviceGetClockInfo", self._n.NVML_CLOCK_SM)),
            mem_clock_mhz=_maybe(lambda: self._get("nvmlDeviceGetClockInfo", self._n.NVML_CLOCK_MEM)),
            temp_c=_maybe(lambda: self._get("nvmlDeviceGetTemperature", self._n.NVML_TEMPERATURE_GPU)),
            pstate=_maybe(lambda: self._get("nvmlDeviceGetPerformanceState")),
            event_reasons=_maybe(lambda: self._get("nvmlDeviceGetCurrentClocksThrottleReasons")),
            gpu_util_pct=use.gpu if use is not None else None,
            mem_util_pct=use.memory if use is not None else None,
            compute_pids=tuple(int(p.pid) for p in pids or ()),
            throttle_ns=throttle,
        )

    def reopen(self) -> None:
        _maybe(lambda: _call(self._n.nvmlShutdown))
        _call(self._n.nvmlInit)
        self._handle = _call(self._n.nvmlDeviceGetHandleByUUID, self._uuid.encode())


class Unreachable:
    """A GPU that the driver counts and cannot reach: whatever it is asked, it raises why."""

    def __init__(self, index: int, error: NvmlError) -> None:
        self.index = index
        self._error = error

    def _refuse(self, *_: object) -> Any:
        raise NvmlError(self._error.kind, str(self._error))

    identity = energy_mj = energy_field_mj = power_mw = power_samples = slow = reopen = _refuse


def _gpu(index: int) -> Gpu:
    """The GPU of this number. One that is lost must not hide the others."""
    try:
        return PynvmlGpu(index)
    except NvmlError as error:
        return Unreachable(index, error)


class PynvmlLibrary:
    """NVML through nvidia-ml-py, initialised once per process."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlError("absent", "the package nvidia-ml-py (module pynvml) is not installed") from error
        self._n = pynvml
        try:
            _call(pynvml.nvmlInit)
        except NvmlError as error:
            raise NvmlError(error.kind, _NO_START.get(getattr(error.__cause__, "value", 0), str(error))) from error

    def versions(self) -> dict[str, str]:
        driver = _maybe(lambda: _call(self._n.nvmlSystemGetDriverVersion))
        nvml = _maybe(lambda: _call(self._n.nvmlSystemGetNVMLVersion))
        cuda = _maybe(lambda: _call(self._n.nvmlSystemGetCudaDriverVersion))
        return {
            "driver": _text(driver or "unknown"),
            "nvml": _text(nvml or "unknown"),
            "cuda_driver": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        }

    def gpus(self) -> list[Gpu]:
        return [_gpu(index) for index in range(int(_call(self._n.nvmlDeviceGetCount)))]

    def mig_parent(self, uuid: str) -> int | None:
        def parent() -> int:
            slice_handle = _call(self._n.nvmlDeviceGetHandleByUUID, uuid.encode())
            return int(
                _call(
                    self._n.nvmlDeviceGetIndex,
                    _call(self._n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, slice_handle),
                )
            )

        return _maybe(parent)


_LIBRARY: tuple[int, PynvmlLibrary] | None = None


def load_nvml() -> Nvml:
    """NVML of this process, initialised on first use (again after a fork); NvmlError with its cause where there is
    none."""
    global _LIBRARY
    if _LIBRARY is None or _LIBRARY[0] != os.getpid():
        _LIBRARY = (os.getpid(), PynvmlLibrary())
    return _LIBRARY[1]
