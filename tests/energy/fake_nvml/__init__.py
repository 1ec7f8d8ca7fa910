"""A compiled stand-in for the NVIDIA driver's libnvidia-ml.so.1: a known power curve, its integral, sensors, faults.

    library = shared_library()        # compiled once per process; needs gcc, see why_not()
    with FakeDriver(library, Curve("square", lo_w=60, hi_w=300), lost="2.0/3.5") as driver:
        ...                           # the real pynvml of this process now talks to the fake card
        driver.set(stale="0")         # a fault from now on: settings are read at every call
        driver.joules(begin_s, end_s)  # the truth between two readings of time.monotonic()
    run_python("import pynvml; ...", driver)  # the same card in a fresh process

How the real pynvml finds it. The dynamic loader reads LD_LIBRARY_PATH once, when a process starts. So a *fresh* process
(run_python, or one that multiprocessing spawns) gets the directory in LD_LIBRARY_PATH, and any program's
dlopen("libnvidia-ml.so.1") finds the fake. In *this* process, which has long started, the context manager hands the
loaded library to pynvml itself (`pynvml.nvmlLib`), clears its cache of functions, and puts both back at the end. A
forked child inherits all of it.

All seconds in settings count from `t0_s`, a reading of time.monotonic(). Every process with the same settings sees the
same card. The keys are listed at `SETTINGS`; a span is "from" or "from/until"; `fail` and `slow` take
"call:value@from/until,call:value", where call is an NVML function, "nvmlInit", "field186", "field186.1" (one scope) or
"*". Outside the context the library answers "driver not loaded", so that no test measures a phantom.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pynvml

LIBRARY_NAME = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, TIMEOUT, GPU_IS_LOST, UNKNOWN = 3, 4, 9, 10, 15, 999

SETTINGS = {
    "gpus": "number of cards (1)",
    "arch": "NVML architecture number: 4 Pascal (no energy counter), 5 Volta, 7 Ampere, 9 Hopper (9)",
    "tick_s": "the counter is renewed this often (0.1); 0: always",
    "tick_phase_s": "and at this phase (0)",
    "base_j": "what the counter showed at t0 (1e6)",
    "counter_gain": "the counter's factor against the truth (1)",
    "reset": "from here on the counter starts again at zero (driver reload)",
    "stale": "span in which the counter keeps its value",
    "garbage": "span in which counter and power read all ones",
    "power_period_s": "the power sensors are renewed this often (0.1)",
    "power_phase_s": "and at this phase (0)",
    "average_window_s": "averaging window of PowerUsage and field 185 (1)",
    "instant_window_s": "averaging window of field 186 (0.025)",
    "power_gain": "the power sensors' factor against the truth (1)",
    "zero": "span in which the power sensors read 0 mW",
    "zero_every": "each n-th renewal of the power sensors reads 0 mW",
    "module_w": "watts beside the GPU: makes scope 1 (module) of the fields supported",
    "ring_period_s": "the driver's sample buffer: one mean each (0.02)",
    "ring_samples": "and so many of them (120)",
    "lost": "span in which every call says GPU is lost",
    "fail": "calls that give an error code",
    "slow": "calls that take so many seconds more",
    "throttle": "span of throttling (clock, event reasons, violation time)",
    "throttle_policy": "its NVML policy: 0 power, 1 thermal (0)",
    "processes": "compute processes, 'pid:MiB,pid:MiB'; the word self is the caller's pid",
    "processes_at": "the span in which they run (always)",
    "xid": "time of one critical Xid error",
    "mig": "number of MIG slices (0: not in MIG mode)",
    "ecc": "error correction on (0)",
    "persistence": "persistence mode (1)",
    "power_limit_w": "enforced limit (700)",
    "default_limit_w": "factory limit (700)",
    "temperature_c": "at rest, without the tenth of a degree per watt (30)",
    "name": "product name",
    "driver": "driver version",
    "cuda": "CUDA version as a number (13000)",
}


def why_not() -> str | None:
    """The reason why the library cannot be built here, or None where it can."""
    if sys.platform != "linux":
        return "the fake NVML library is a Linux shared object"
    return None if shutil.which("gcc") else "gcc is needed to build the fake NVML library"


def build(directory: Path) -> Path:
    """Compile the library into `directory` and give its path; RuntimeError with the compiler's words on failure."""
    library = directory / LIBRARY_NAME
    sources = sorted(str(path) for path in HERE.glob("*.c"))
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    command = ["gcc", *flags, "-o", str(library), *sources, "-lm", "-lpthread"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return library


@functools.cache
def shared_library() -> Path:
    """The library in a temporary directory of this process, built on first use and removed at exit."""
    directory = tempfile.mkdtemp(prefix="fake-nvml-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return build(Path(directory))


@dataclass(frozen=True)
class Curve:
    """The power of a card over time: `lo_w` outside [start_s, end_s), a shape between `lo_w` and `hi_w` inside.

    Shapes: constant (hi_w), square (duty), ramp (up over period_s, then hi_w), sine (starts at lo_w), exponential (time
    constant period_s), steps (pairs of a time and the watts from there on; lo_w before; the other values are unused).
    """

    shape: str = "constant"
    lo_w: float = 60.0
    hi_w: float = 300.0
    start_s: float = 0.0
    end_s: float = math.inf
    period_s: float = 1.0
    duty: float = 0.5
    steps: tuple[tuple[float, float], ...] = ()

    def joules(self, begin_s: float, end_s: float) -> float:
        """The exact energy between two times."""
        return self._until(end_s) - self._until(begin_s)

    def _until(self, t_s: float) -> float:
        if self.shape == "steps":
            ends = [later for later, _ in self.steps[1:]] + [math.inf]
            pieces = zip(self.steps, ends, strict=True)
            above = sum((watts - self.lo_w) * max(0.0, min(t_s, end) - start) for (start, watts), end in pieces)
            return self.lo_w * t_s + above
        inside_s = max(0.0, min(t_s, self.end_s) - self.start_s)
        return self.lo_w * t_s + (self.hi_w - self.lo_w) * self._shape_integral(inside_s)

    def _shape_integral(self, x: float) -> float:
        period = self.period_s
        if self.shape == "square":
            return (x // period) * period * self.duty + min(x % period, period * self.duty)
        if self.shape == "ramp":
            return min(x, period) ** 2 / (2 * period) + max(0.0, x - period)
        if self.shape == "sine":
            return x / 2 - period / (4 * math.pi) * math.sin(2 * math.pi * x / period)
        if self.shape == "exponential":
            return x + period * math.expm1(-x / period)
        if self.shape == "constant":
            return x
        raise ValueError(f"no such shape of curve: {self.shape}")

    def settings(self) -> dict[str, str]:
        """The same curve in the library's words."""
        words = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        words["steps"] = ",".join(f"{at!r}:{watts!r}" for at, watts in self.steps)
        return words


class FakeDriver:
    """One or several fake cards, one curve each; the last curve serves the cards that have none of their own.

    Settings hold for all cards; `set(gpu, ...)` is for one. As a context manager it installs itself in this process.
    """

    def __init__(self, library: Path, *curves: Curve, **settings: object) -> None:
        self.library = library
        self.t0_s = time.monotonic()
        self._curves = list(curves or (Curve(),))
        self._settings: dict[tuple[int | None, str], object] = {}
        self._saved: dict[str, Any] | None = None
        for gpu, curve in enumerate(self._curves):
            self._settings |= {(gpu, key): value for key, value in curve.settings().items()}
        self._settings |= {(None, key): value for key, value in self._curves[-1].settings().items()}
        self.set(**({"gpus": len(self._curves)} | settings))

    def set(self, gpu: int | None = None, /, **settings: object) -> None:
        """Change settings of one card or of all, at once, also for processes started from now on; None removes one."""
        unknown = settings.keys() - SETTINGS.keys()
        if unknown:
            raise ValueError(f"the fake driver has no setting {sorted(unknown)}")
        self._settings |= {(gpu, key): value for key, value in settings.items()}
        if self._saved is not None:
            os.environ[VARIABLE] = self.words()

    def load(self, watts: float, gpu: int = 0) -> None:
        """From now on the card draws `watts`; the past keeps its curve, which must be of steps."""
        self.plan(self.now_s(), watts, gpu)

    def plan(self, at_s: float, watts: float, gpu: int = 0) -> None:
        """From `at_s` on (now or later, and after every earlier step) the card will draw `watts`."""
        steps = (*self._curves[gpu].steps, (round(at_s, 6), watts))
        self._curves[gpu] = Curve("steps", lo_w=self._curves[gpu].lo_w, steps=steps)
        self._settings |= {(gpu, key): value for key, value in self._curves[gpu].settings().items()}
        self.set()

    def words(self) -> str:
        """Everything as the one variable that the library reads."""
        words = [f"t0={self.t0_s!r}"]
        for (gpu, key), value in self._settings.items():
            if value is not None and value != "":
                words.append(f"{key}={value}" if gpu is None else f"{gpu}:{key}={value}")
        return ";".join(words)

    def environment(self) -> dict[str, str]:
        """What a fresh process needs to see these cards."""
        before = os.environ.get("LD_LIBRARY_PATH")
        path = os.pathsep.join([str(self.library.parent), *([before] if before else [])])
        return {VARIABLE: self.words(), "LD_LIBRARY_PATH": path}

    def now_s(self) -> float:
        """Seconds since t0, the time in which settings and curves are written."""
        return time.monotonic() - self.t0_s

    def joules(self, begin_s: float, end_s: float, gpu: int = 0) -> float:
        """The exact energy of a card between two readings of time.monotonic()."""
        return self._curve(gpu).joules(begin_s - self.t0_s, end_s - self.t0_s)

    def _curve(self, gpu: int) -> Curve:
        return self._curves[min(gpu, len(self._curves) - 1)]

    def uuid(self, gpu: int = 0) -> str:
        """The name under which NVML knows a card."""
        return f"GPU-fa4e0000-0000-4000-8000-{gpu:012d}"

    def __enter__(self) -> FakeDriver:
        names = (VARIABLE, "LD_LIBRARY_PATH")
        self._saved = {name: os.environ.get(name) for name in names}
        self._pynvml = (pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount)
        loaded = ctypes.CDLL(str(self.library))
        loaded.fake_nvml_forget()
        os.environ.update(self.environment())
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlLib = loaded
        return self

    def __exit__(self, *error: object) -> None:
        saved, self._saved = self._saved, None
        pynvml.nvmlLib, cache, pynvml._nvmlLib_refcount = self._pynvml
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(cache)
        for name, value in (saved or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_python(
    code: str, driver: FakeDriver, *, timeout_s: float = 60, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that sees the driver's cards and this repository; its status is unchecked."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | driver.environment() | (env or {})
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
    )
