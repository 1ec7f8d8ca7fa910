"""The fixed work under all tools: training steps of a small network on one device."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmark.energy import Device

BATCH = {"cpu": 32, "cuda": 512}


def training_steps(device: Device, wait: Callable[[], None] | None) -> Callable[[float], int]:
    """What trains ResNet-20 on random images for so many seconds, and returns how many steps it took.

    Two steps run at once, so that loading kernels is nobody's energy. `wait` waits for the device: each step is waited
    for, so that none is queued when the tools are asked.
    """
    import torch
    import torch.nn.functional as F

    from benchmark.vision.models.repdistiller.resnet import resnet20

    place = device.torch_name
    count = BATCH["cuda" if device.kind == "cuda" else "cpu"]
    network = resnet20(10).to(place).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(count, 3, 32, 32, device=place), torch.arange(count, device=place) % 10

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        if wait is not None:
            wait()

    def run(seconds: float) -> int:
        end, steps = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            step()
            steps += 1
        return steps

    step()
    step()
    return run
