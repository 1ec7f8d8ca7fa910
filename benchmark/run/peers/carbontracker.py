"""carbontracker: its measuring thread alone.

Its front door asks a service on the internet where the machine is, and for the grid's carbon intensity. The energy does
not depend on that, and this command sends nothing.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from benchmark.run.peers.told import Peer, Start


def _prepare(folder: Path) -> Start:
    door = importlib.import_module("carbontracker.tracker")
    component = importlib.import_module("carbontracker.components.component")
    logger = importlib.import_module("carbontracker.loggerutil").Logger(log_dir=None, verbose=0)
    parts = component.create_components(components="all", pids=[os.getpid()], devices_by_pid=False, logger=logger)

    def start() -> Any:
        # an error ends its thread, and not (as by default) the whole process
        thread = door.CarbonTrackerThread(delete=lambda: None, components=parts, logger=logger, ignore_errors=True)
        thread.epoch_start()
        return lambda: _stop(thread)

    return start


def _stop(thread: Any) -> tuple[float, str]:
    thread.epoch_end()
    thread.stop()
    if not any(map(any, (part.power_usages for part in thread.components))):
        raise RuntimeError("it took no reading (every 1 s)")
    pue = importlib.import_module("carbontracker.constants").PUE_2023
    found = ", ".join(
        f"{part.name} {' and '.join(part.devices())} by {type(part.handler).__name__}" for part in thread.components
    )
    return 1000 * float(thread.total_energy_per_epoch().sum()), (
        f"mean of the power read every 1 s x time: {found}; "
        f"where there is no RAPL, half the rated power of a CPU of a similar name; times a PUE of {pue}"
    )


PEER = Peer(
    "carbontracker", "carbontracker", "carbontracker", "mean of the power read every 1 s x time x a PUE", _prepare
)
