"""experiment-impact-tracker: loaded to learn whether it could run, and not run.

Its last release (0.1.8) wants a pandas before 2, and asks a service on the internet where the machine is each time it
starts. This command sends nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmark.run.peers.told import Peer, Start

NAME = "experiment-impact-tracker"


def _prepare(folder: Path) -> Start:
    importlib.import_module("experiment_impact_tracker.compute_tracker")
    raise RuntimeError("not run: at each start it asks ipinfo.io where this machine is, and this command sends nothing")


PEER = Peer(
    NAME,
    NAME,
    "experiment_impact_tracker",
    "RAPL by this process's share of CPU time, nvidia-smi, times a PUE of 1.58",
    _prepare,
    "not in [compare]: its last release, 0.1.8, imports what pandas 2 and 3 no longer have",
)
