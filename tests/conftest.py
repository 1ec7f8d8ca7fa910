"""Shared fixtures."""

from __future__ import annotations

import math
import os
import tempfile

import pytest
import torch

from benchmark.plan.task import Data, Model, Recipe, Scale, Task

os.environ["ENERGY_LOCK_DIR"] = tempfile.mkdtemp(prefix="test-locks-")  # no test waits for another process
os.environ["OMP_NUM_THREADS"] = "1"  # and what runs stages sets as many
os.environ.pop("COLUMNS", None)  # xdist says 80 to its workers: what a test prints must not depend on who runs it
torch.set_num_threads(1)  # xdist runs two workers on two cores; also what makes sums reproducible


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run beside each other: what else this computer does is no part of what they find."""
    monkeypatch.setattr("benchmark.energy.meters.estimate.busy_cpu_seconds", lambda: math.nan)


@pytest.fixture
def recipe() -> Recipe:
    """Two quick one-cycle epochs."""
    return Recipe(
        name="test", epochs=2, batch_size=32, lr=0.05, schedule="onecycle", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


@pytest.fixture
def task(recipe: Recipe) -> Task:
    """A tiny network on a tiny synthetic set."""
    return Task(
        model=Model(name="tiny", builder="tests.tiny:tiny"),
        data=Data(name="synthetic", classes=10),
        scale=Scale(name="test", train_images=80, test_images=40),
        recipe=recipe,
        seed=0,
        train_precision="fp32",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped, with the reason, where there is no GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make soak` asks for more kills than `make test-slow`."""
    parser.addoption("--kills", type=int, default=5, help="how often a study is killed at random (test_soak.py)")
