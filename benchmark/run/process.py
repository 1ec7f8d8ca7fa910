"""What working needs of the process: a device made ready, signals that end work in order, errors in one line."""

from __future__ import annotations

import contextlib
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
    """Make the device ready before any window opens (torch imported, context made); returns what waits for it.

    Raises DeviceError where torch cannot use the device, or would use another board than the one the meter reads.
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
        torch.zeros(1, device=device.torch_name)
        found = str(torch.cuda.get_device_properties(device.torch_name).uuid)
    except RuntimeError as error:
        raise DeviceError(f"{device.name} ({device.torch_name}) cannot be used: {error}") from error
    if not device.mig and found not in device.uuid:
        raise DeviceError(
            f"torch's {device.torch_name} is board {found}, but the meter reads {device.uuid}: "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the board: hardware.device=GPU-..."
        )

    def wait() -> None:
        torch.cuda.synchronize(device.torch_name)

    return wait


def words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes it"
    text = " ".join(str(error).split())
    known = type(error).__module__.startswith(("benchmark", "methods"))
    return text if known and text else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the work like Ctrl-C does: windows close, journals are written.

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
