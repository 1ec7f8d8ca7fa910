"""Measures the energy of any training script: only the lines with `tracer` and `window` are needed.

    python examples/measure_your_training.py

This training needs torch; the tracer itself needs none, and knows none of this suite's methods. On a GPU it reads the
board's meter. Where there is no meter it gives an estimate and labels it (grade E).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.energy import EnergyTracer


def main(epochs: int = 3, images: int = 2000) -> None:
    """Train a small network on noise; print the energy of each epoch and of the training, without evaluation."""
    tracer = EnergyTracer("auto")
    device = tracer.device.torch_name
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    data, labels = torch.randn(images, 3, 32, 32, device=device), torch.randint(10, (images,), device=device)
    with tracer.window("training") as training:
        for number in range(1, epochs + 1):
            with tracer.window(f"epoch {number}") as epoch:
                train(model, optimiser, data, labels)
            with training.paused():  # off the meter
                hits = (model(data).argmax(1) == labels).double().mean()
                print(f"epoch {number}: {epoch.reading.joules:.1f} J, accuracy {100 * hits:.1f} %")
    # energy with its 95 % interval, meter and grade; the reading also has .wh, .joules and .to_json()
    print(training.reading)


def train(model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """One epoch; this function does not know that it is measured."""
    for rows in torch.split(torch.randperm(len(images), device=images.device), 100):
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves backward untyped
        optimiser.step()


if __name__ == "__main__":
    main()
