"""Writes benchmark/run/sizes.csv, by which a forecast knows how large the networks of the study are without torch.

For every network of configs/model and the sizes of the search spaces that configs/method names, at 100 classes: the
multiply-accumulates of one image (convolution and linear layers), and how many modules compute. Of a search space it is
the network whose every edge has its first operation that computes; of DARTS's cells the published genotype.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from benchmark.plan.folders import CONFIGS, names
from benchmark.plan.task import Model
from benchmark.vision.macs import count
from benchmark.vision.network import build_model
from methods.nas import spaces
from methods.nas.darts.genotype import PUBLISHED

PATH = Path(__file__).resolve().parents[1] / "benchmark/run/sizes.csv"
CELLS = ((36, 20), (16, 8), (12, 5), (8, 3))
CLASSES = 100


def models() -> Iterator[tuple[Model, dict[str, Any]]]:
    """Every network, and what its builder needs beside."""
    for name in names("model"):
        words = OmegaConf.to_container(OmegaConf.load(CONFIGS / "model" / f"{name}.yaml"))
        assert isinstance(words, dict)
        yield Model.model_validate({key: value for key, value in words.items() if key != "recipe"}), {}
    for channels, cells in CELLS:
        yield spaces.darts(channels, cells), {"genotype": PUBLISHED["DARTS_V2"]}
    for size, space in [("s", "pmb"), ("m", "pmb"), ("xs", "pmb"), ("b18", "tree"), ("b6", "tree"), ("b2", "tree")]:
        found = spaces.space_of(space, size)
        yield found.model, dict(found.architecture([ops[0] for ops in found.edges]))


def size_of(model: Model, given: dict[str, Any]) -> tuple[int, int]:
    """MACs, and how many modules compute, for one image."""
    with torch.device("meta"):
        whole = model.model_copy(update={"kwargs": {**model.kwargs, **given}})
        network = build_model(whole, CLASSES)
    calls = 0

    def add(*_: object) -> None:
        nonlocal calls
        calls += 1

    for module in network.modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(add)
    _, macs = count(network)
    return macs, calls


def main() -> None:
    """Write the table."""
    with PATH.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "macs", "modules"])
        for model, given in models():
            writer.writerow([model.name, *size_of(model, given)])


if __name__ == "__main__":
    main()
