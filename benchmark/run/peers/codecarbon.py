"""CodeCarbon, offline: no request to the internet, no file, no line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmark.run.peers.told import Peer, Start

COUNTRY = "FRA"
"""The offline tracker wants a country for its grams of CO2; its energy does not depend on it."""


def _prepare(folder: Path) -> Start:
    tracker = importlib.import_module("codecarbon").OfflineEmissionsTracker(
        country_iso_code=COUNTRY,
        save_to_file=False,
        save_to_api=False,
        output_dir=str(folder),
        log_level="critical",
        allow_multiple_runs=True,
    )

    def start() -> Any:
        tracker.start()
        return lambda: _stop(tracker)

    return start


def _stop(tracker: Any) -> tuple[float, str]:
    tracker.stop()
    data = tracker.final_emissions_data
    parts = ", ".join(
        f"{name} {1000 * float(kwh):.3g} W h"
        for name, kwh in (("CPU", data.cpu_energy), ("GPU", data.gpu_energy), ("RAM", data.ram_energy))
    )
    hardware = ", ".join(_in_words(part) for part in tracker._hardware if type(part).__name__ != "RAM")
    return 1000 * float(data.energy_consumed), (
        f"reads the whole machine every 15 s: {hardware}; adds watts per memory slot, no PUE ({parts})"
    )


def _in_words(part: Any) -> str:
    """A part of the machine as CodeCarbon describes it, with the rated power that its model of the CPU's load uses."""
    rated = getattr(part, "_tdp", None)
    text = str(part.description())
    return f"{text} of {rated:g} W" if isinstance(rated, int | float) and "W" not in text else text


PEER = Peer(
    "CodeCarbon", "codecarbon", "codecarbon", "reads counters where it may, else a model of the CPU's load", _prepare
)
