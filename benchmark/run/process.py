"""What working needs of the process: a device made ready, signals that end work in order, errors in one line."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from benchmark.energy import DeviceError

if TYPE_CHECKING:
    from benchmark.energy import Device


class Interrupted(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); treated like Ctrl-C."""


def ready(device: Device) -> Callable[[], None] | None:
    """Make the device ready before any window opens (torch imported, context made, libraries warm); returns what waits
    for it.

    What that takes is nobody's: it is done once per process and device, and no stage is billed for it. Raises
    DeviceError where torch cannot use the device, or would use another board than the one the meter reads.
    """
    if device.kind == "cuda" and "torch" not in sys.modules:
        # CUDA's own order is fastest first, the driver's (and so the meter's) is by bus
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    import torch

    if device.kind != "cuda":
        return None
    if not torch.cuda.is_available():
        raise DeviceError(
            f"{device.name} is there, but this torch ({torch.__version__}) cannot use it: "
            "install a CUDA build of torch, or say hardware=cpu"
        )
    try:
        warm_up(device.torch_name)
        found = str(torch.cuda.get_device_properties(device.torch_name).uuid)
    except RuntimeError as error:
        raise DeviceError(f"{device.name} ({device.torch_name}) cannot be used: {error}") from error
    if not device.mig and found not in device.uuid:
        raise DeviceError(
            f"torch's {device.torch_name} is board {found}, but the meter reads {device.uuid}: "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the board: hardware.device=GPU-..."
        )
    return functools.partial(torch.cuda.synchronize, device.torch_name)


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


def words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes it"
    text = " ".join(str(error).split())
    known = type(error).__module__.startswith(("benchmark", "methods"))
    return text if known and text else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the work like Ctrl-C does: windows close, journals are written."""

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
