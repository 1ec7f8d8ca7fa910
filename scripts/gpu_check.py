"""Tests the energy meter of this machine's GPU, once per device and driver; takes at most six minutes.

    python scripts/gpu_check.py [--device cuda:0] [--results results]        (make gpu-check)

Prints one verdict per line and writes results/devices/<machine>-gpu-check.json. Exit status 1 if a check fails on which
results depend. Exit status 0 also where there is no GPU; it then says so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmark.energy import Device, DeviceError, DeviceLock, find_device, probe  # noqa: E402 - a script finds the repository itself
from benchmark.energy.acceptance.trials import Durations, Load, Trial, Verdict  # noqa: E402 - same
from benchmark.energy.acceptance.verdicts import CHECKS, examine  # noqa: E402 - same
from benchmark.records.files import replace  # noqa: E402 - same
from benchmark.records.provenance import now, provenance  # noqa: E402 - same

PROBE_S = 35.0


@dataclass
class Work:
    """A load on the GPU: `step` queues kernels for some milliseconds, `wait` waits for all of them."""

    name: str
    step: Callable[[], object]
    wait: Callable[[], None]

    def work(self, steps: int) -> None:
        """Queue `steps` steps and wait for them."""
        for _ in range(steps):
            self.step()
        self.wait()


def torch_loads(device: Device) -> tuple[dict[str, Load], Callable[[], None]]:
    """The four loads on a GPU, and the function that waits for it. Makes the CUDA context."""
    import torch

    from benchmark.run.process import ready

    wait = ready(device)
    assert wait is not None, "a GPU was found"
    where = torch.device(device.torch_name)
    a, b = (torch.randn(4096, 4096, device=where, dtype=torch.float16) for _ in range(2))
    source = torch.empty(2**28, device=where, dtype=torch.uint8)
    target = torch.empty_like(source)
    loads: dict[str, Load] = {
        "matmul": Work("matmul", lambda: [a @ b for _ in range(10)], wait),
        "conv training": Work("conv training", _training(where), wait),
        "memory copy": Work("memory copy", lambda: [target.copy_(source) for _ in range(10)], wait),
        "idle": Work("idle", lambda: time.sleep(0.01), wait),
    }
    for load in loads.values():
        load.work(3)
    return loads, wait


def _training(where: Any) -> Callable[[], object]:
    """One training step of a small convolutional network on random images."""
    import torch
    from torch import nn

    widths = (3, 64, 128, 256)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(widths)]
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 100)).to(where)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(256, 3, 32, 32, device=where)
    labels = torch.randint(0, 100, (256,), device=where)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss: torch.Tensor = nn.functional.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()

    return step


def show(verdict: Verdict) -> None:
    """Print a verdict as one readable line."""
    print(f"{verdict.word:<8} {verdict.check}: {verdict.text}", flush=True)


def trial_of(
    device: Device,
    make_loads: Callable[[], tuple[Mapping[str, Load], Callable[[], None]]],
    durations: Durations,
    probe_s: float,
) -> Trial:
    """Probe the device (idle power first, because the loads make a context), then make the loads."""
    made: list[tuple[Mapping[str, Load], Callable[[], None]]] = []
    facts = probe(device, create_context=lambda: made.append(make_loads()), cap_s=probe_s)
    loads, wait = made[0] if made else make_loads()
    return Trial(device, loads, durations, facts, wait)


def report(trial: Trial, verdicts: Sequence[Verdict], seconds: float) -> dict[str, Any]:
    """The whole result as JSON data."""
    device = trial.device
    told = {"name": device.name, "uuid": device.uuid, "driver": device.driver, "power_limit_w": device.power_limit_w}
    found = {
        "created": now(),
        "device": {**told, "machine": device.machine},
        **provenance(),
        "seconds": seconds,
        "passed": not failed(verdicts),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "durations": asdict(trial.durations),
        "probe": dict(trial.facts),
        "readings": [{"load": name, **reading.to_json()} for name, reading in trial.readings],
    }
    return {name: _plain(value) for name, value in found.items()}


def failed(verdicts: Sequence[Verdict]) -> list[str]:
    """The blocking checks that failed."""
    return [verdict.check for verdict in verdicts if verdict.word == "FAIL" and verdict.blocking]


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the GPU; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda:N or GPU-<uuid>")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="+", default=list(CHECKS), choices=list(CHECKS), metavar="CHECK")
    options = parser.parse_args(arguments)
    try:
        device = find_device(options.device)
        if device.kind != "cuda":
            print(f"skipped: no GPU here ({'; '.join(device.why_not_better)})")
            return 0
        began = time.monotonic()
        print(f"{device.name} ({device.uuid}), driver {device.driver}: about five minutes")
        with DeviceLock(device):
            trial = trial_of(device, lambda: torch_loads(device), Durations(), PROBE_S)
            verdicts = examine(trial, options.only, show)
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = options.results / "devices" / f"{device.machine}-gpu-check.json"
    content = report(trial, verdicts, time.monotonic() - began)
    replace(path, json.dumps(content, indent=1, allow_nan=False).encode())
    bad = failed(verdicts)
    print(f"written: {path}\n{'FAIL: ' + ', '.join(bad) if bad else 'PASS'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
