"""Prepares the process for stages: a device made ready, signals that end a run in order, errors in one line."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

from benchmark.energy import DeviceError
from benchmark.energy.meters.neighbours import arriving
from benchmark.plan.stage import Output

if TYPE_CHECKING:
    from benchmark.energy import Device


LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The least driver branch that serves a major version of CUDA (NVIDIA, CUDA compatibility, minor versions)."""


class Interrupted(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); treated like Ctrl-C."""


def ready(device: Device) -> Callable[[], None] | None:
    """Make the device ready before any window opens (torch imported, context made, libraries warm); returns what waits
    for it.

    This is done once per process and device, and no stage is charged for its energy. Raises
    DeviceError where torch cannot use the device, or would use another board than the one the meter reads.
    """
    if device.kind == "cuda":
        _count_as_the_driver_does()
    import torch

    if device.kind != "cuda":
        if device.threads is not None:
            torch.set_num_threads(device.threads)  # the machine's name says so
        return None
    with warnings.catch_warnings(record=True) as said:  # torch tells why it sees no GPU in a warning
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        told = " ".join(str(warning.message) for warning in said)
        raise DeviceError(f"{device.name} is there, but {_why_unusable(device, told)}; or say hardware=cpu")
    try:
        with arriving(device) if not _is_on(device.torch_name) else contextlib.nullcontext():
            warm_up(device.torch_name)
        found = _uuid(device.torch_name)
    except RuntimeError as error:
        raise DeviceError(
            f"{device.name} ({device.torch_name}) cannot be used: {_why_failed(device, error)}"
        ) from error
    if not device.mig and found not in device.uuid:
        raise DeviceError(_another_board(device, found))
    return functools.partial(torch.cuda.synchronize, device.torch_name)


def _is_on(torch_name: str) -> bool:
    """Whether this process has a context on a board already: then it is too late to see what our arrival changes."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return False
    asked = getattr(torch._C, "_cuda_hasPrimaryContext", None)  # a build without CUDA has none
    return asked is None or bool(asked(torch.device(torch_name).index or 0))


def _count_as_the_driver_does() -> None:
    """Have CUDA number its boards by bus, as the driver and so the meter do; its own order is fastest first.

    CUDA reads the variable when it is initialised. A value that was set before stays: the boards are compared.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def _why_unusable(device: Device, told: str) -> str:
    """Why torch sees no GPU where the driver shows one, and the remedy."""
    import torch

    built = torch.version.cuda
    this = f"this torch ({torch.__version__})"
    if built is None:
        return f"{this} is built without CUDA: install a CUDA build of torch"
    speaks = str(device.identity.get("cuda_driver") or "")
    if speaks and int(speaks.partition(".")[0]) < int(built.partition(".")[0]):
        least = LEAST_DRIVER.get(int(built.partition(".")[0]))
        newer = f"update the driver to {least} or newer" if least else "update the driver"
        return (
            f"its driver {device.driver} supports CUDA up to {speaks}, and {this} is built for CUDA {built}: "
            f"{newer}, or install a torch built for CUDA {speaks.partition('.')[0]}.x"
        )
    told = " ".join(told.split()) or "it does not say why (does this process see libcuda.so.1 and /dev/nvidia*?)"
    return f"{this}, built for CUDA {built}, sees no GPU: {told}"


def _why_failed(device: Device, error: RuntimeError) -> str:
    """What went wrong at the first kernel; a build without code for this board has a remedy of its own."""
    import torch

    text = " ".join(str(error).split())
    if "no kernel image" not in text:
        return text
    major, minor = torch.cuda.get_device_capability(device.torch_name)
    return (
        f"this torch ({torch.__version__}) holds no code for its sm_{major}{minor} (only for "
        f"{', '.join(torch.cuda.get_arch_list())}): install a build for CUDA 12.6, which serves Pascal and Volta too"
    )


def _uuid(torch_name: str) -> str:
    """The UUID of a board as torch tells it: without the driver's prefix."""
    import torch

    return str(torch.cuda.get_device_properties(torch_name).uuid)


def _another_board(device: Device, found: str) -> str:
    import torch

    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    other = next((name for name in names if _uuid(name) in device.uuid), None)
    where = f" (torch calls that one {other})" if other else ""
    return (
        f"torch's {device.torch_name} is board {found}, but the meter reads {device.uuid}{where}: start the process "
        f"with CUDA_DEVICE_ORDER=PCI_BUS_ID, or show it one board alone: CUDA_VISIBLE_DEVICES={device.uuid}"
    )


@functools.cache
def warm_up(torch_name: str) -> None:
    """Load what the first layers of any stage would load: the context, cuBLAS, cuDNN and their kernels.

    A small convolution and a matrix product, forward and backward: the backward pass runs in a thread of its own, with
    handles of its own. Draws no random number. Once per process and device; RuntimeError where the device fails.
    """
    import torch

    with torch.enable_grad():
        images, kernels, weights = (
            torch.ones(*shape, device=torch_name, requires_grad=True)
            for shape in ((8, 16, 16, 16), (32, 16, 3, 3), (32 * 16 * 16, 64))
        )
        features = torch.nn.functional.conv2d(images, kernels, padding=1)
        (features.flatten(1) @ weights).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if torch.device(torch_name).type == "cuda":
        torch.cuda.synchronize(torch_name)


COSTLY = re.compile(
    r"(OMP|MKL|GOMP|KMP|OPENBLAS|ONEDNN|DNNL|CUDA|CUDNN|CUBLAS|NVIDIA|NCCL|PYTORCH|TORCH|TORCHINDUCTOR|ORT|TRT|MALLOC)_"
)
"""Variables with these prefixes may change how fast the same stage runs, and at what energy."""


def costly_settings() -> dict[str, str]:
    """The variables of this process that may change the cost of a stage, for its records."""
    return {name: value[:200] for name, value in sorted(os.environ.items()) if COSTLY.match(name)}


def words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes it"
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception may fail to print itself; that must not hide it
        text = "it cannot be printed"
    known = type(error).__module__.startswith(("benchmark", "methods"))
    return text if known and text else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end a run like Ctrl-C does: windows close, journals are written.

    SIGINT stays as it was inherited. A shell starts its background jobs, and nohup its command, with SIGINT ignored, so
    that a Ctrl-C meant for something else does not end them: such a run goes on, and SIGTERM is how to end it.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: nothing to install, and nothing to restore
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def forget() -> None:
    """Free what a failed stage left on the device, so that the next one has all of it."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve(fn: str) -> Callable[..., Output]:
    """The stage function named `module:function`."""
    module, _, name = fn.partition(":")
    return cast(Callable[..., Output], getattr(importlib.import_module(module), name))


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[dict[str, int]]:
    """A dict that afterwards holds `peak_memory_bytes`, the most that torch had allocated on a GPU inside; empty on a
    CPU, where torch does not count."""
    found: dict[str, int] = {}
    if not device.startswith("cuda"):
        yield found
        return
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield found
    finally:
        with contextlib.suppress(RuntimeError):  # a lost GPU: the work's own error says so
            found["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
