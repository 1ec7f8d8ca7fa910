"""Records on a board that does not exist, so that every figure can be looked at without a GPU.

    python -m tests.report.fake_board DIR && python -m benchmark report paths.results=DIR/results paths.artifacts=DIR/artifacts

The fake driver of tests/energy draws a wave of power; windows, meters, records and rows are the real ones. The numbers say
nothing about any board: its name says so, in every figure.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from benchmark.energy import find_device
from benchmark.plan.config import experiment
from benchmark.plan.words import values_of
from benchmark.records.store import Store
from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not
from tests.harness.helpers import lives_of, tiny_experiment, work_all
from tests.harness.test_measured import FAST, PROTOCOL

NAME = "FAKE-BOARD-no-measurement"
BOARD = Curve("square", lo_w=90, hi_w=320, period_s=0.9, duty=0.7)
SIZES = (16, 32, 64)


def make(root: Path) -> Store:
    """Lives of a tiny network on the fake board: plain training at three batch sizes, a pruned one, and a search."""
    store = Store(root / "results", root / "artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
        patch.setattr("benchmark.run.worker.ready", lambda device: lambda: None)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST):
            found = find_device("cuda:0")
            device = dataclasses.replace(found, torch_name="cpu", name=NAME)
            for experiment in _experiments(root):
                work_all(root, device, lives_of(experiment, device, store))
    return store


def _experiments(root: Path):
    scale = {"name": "test", "train_images": 3000, "test_images": 64}
    inference = {**PROTOCOL, "batch_sizes": [1, 8, 32]}
    for size in SIZES:
        recipe = {"name": "t", "epochs": 6, "batch_size": size, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        yield tiny_experiment(root, scale=scale, recipe=recipe, inference=inference)
    pruning = {**(values_of("method", "pruning/l1") or {}), "finetune_epochs": 3}
    plain = tiny_experiment(root, scale=scale, recipe=recipe, inference=inference)
    yield plain.model_copy(update={"method": pruning})
    short = {**recipe, "epochs": 6, "batch_size": 16, "schedule": "cosine"}
    alphas = {"lr": 0.15, "betas": (0.0, 0.999)}  # high, so that a few steps decide
    search = {
        "_target_": "methods.nas.plan.Proxyless", "name": "nas/proxyless", "recipe": "t", "size": "xs", "search": short,
        "alphas": alphas, "every": 1, "weights_only_epochs": 1, "held_out": 0.25,
    }  # fmt: skip  # a setting a line would hide the method
    values = plain.model_dump(mode="json", exclude={"task": {"model"}})
    values["task"]["data"]["search"] = "synthetic"
    values["task"]["recipe"]["epochs"] = 1
    values["task"]["scale"] = {"name": "few", "train_images": 96, "test_images": 32}
    yield experiment({**values, "method": search})


def main() -> None:
    """Make them in the folder that is named."""
    if len(sys.argv) != 2 or why_not() is not None:
        sys.exit(why_not() or "usage: python -m tests.report.fake_board DIR")
    make(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
