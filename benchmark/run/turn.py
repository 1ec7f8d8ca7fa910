"""Whose turn it is on a device: one job at a time is on its meter, whatever process runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmark.energy import Device, DeviceBusy, DeviceLock

DAY_S = 86_400.0


@dataclass
class Turn:
    """The lock of a device, as a run holds it. Within `with` it may be held to the end.

    Where the meter counts what all processes do (a GPU's, RAPL), a run holds the device from its first stage to its
    end: two jobs would each be charged for the other. Elsewhere energy is estimated from this process alone, and it is
    held for one stage at a time, since two that share the cores take each other's time.
    """

    device: Device
    say: Callable[[str], None]
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _to_the_end: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)

    @property
    def shared(self) -> bool:
        """Whether the device's meter counts what all processes do."""
        return self.device.kind == "cuda" or self.device.source.startswith("rapl")

    def prove(self) -> None:
        """Take and give back the lock, so that one which cannot be taken at all is told now. Raises DeviceError."""
        if self.shared:
            return  # taken before the first stage anyhow
        lock = DeviceLock(self.device)
        with contextlib.suppress(DeviceBusy):
            lock.acquire()
            lock.release()

    def take(self) -> None:
        """Hold the device until the end of the run, if its meter is shared.

        It is taken before any stage: else two processes, one with the device and one with a stage, could wait for each
        other.
        """
        if self.shared and not self._to_the_end:
            self._held.enter_context(self._locked())
            self._to_the_end = True

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other process of the suite has a job on this device meanwhile."""
        with contextlib.nullcontext() if self._to_the_end else self._locked():
            yield

    def end(self) -> None:
        """Give the device back."""
        self._held.close()
        self._to_the_end = False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the device's lock; a line tells for whom it waits."""
        lock = DeviceLock(self.device)
        try:
            lock.acquire()
        except DeviceBusy as busy:  # its words name the holder; wait, because a study may take a day
            if not self._told:  # with two processes on one device it would be a line for every stage
                self.say(f"{str(busy).partition('; wait')[0]}: waiting for it, and for each turn after it")
            self._told = True
            lock = DeviceLock(self.device, wait_s=DAY_S)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
