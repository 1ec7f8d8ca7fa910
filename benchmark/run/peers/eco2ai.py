"""eco2AI, with a country given, so that it asks no service on the internet for one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmark.run.peers.told import Peer, Start

COUNTRY = "FR"
"""For its grams of CO2 alone."""


def _prepare(folder: Path) -> Start:
    settings = importlib.import_module("eco2ai.utils")
    before = settings.get_params()
    try:
        tracker = importlib.import_module("eco2ai").Tracker(
            file_name=str(folder / "eco2ai.csv"), alpha_2_code=COUNTRY, ignore_warnings=True
        )
    finally:  # a tracker keeps its arguments as the defaults of the next one, in a file beside its code
        settings.set_params(**before)

    told: list[float] = []

    def note(*args: Any, **kwargs: Any) -> dict[str, Any]:
        told.append(float(tracker.consumption()))
        return {}

    # in the place of its own file: writing that fails beside pandas 3, and looks at every open file of the machine
    tracker._write_to_csv = note

    def start() -> Any:
        tracker.start()
        return lambda: _stop(tracker, told)

    return start


def _stop(tracker: Any, told_kwh: list[float]) -> tuple[float, str]:
    tracker.stop()
    cpu, gpu = tracker._cpu, tracker._gpu
    boards = f"GPU power polled every 10 s ({gpu.name()})" if gpu.is_gpu_available else "no GPU"
    return 1000 * told_kwh[-1], (
        f"this process's share of {cpu.cpu_num()} CPU of {cpu.tdp():g} W by its table, every 10 s; {boards}; "
        "adds 0.375 W per GB of memory in use, no PUE"
    )


PEER = Peer(
    "eco2AI", "eco2ai", "eco2ai", "a table's rated power x CPU load, GPU power every 10 s, memory in use", _prepare
)
