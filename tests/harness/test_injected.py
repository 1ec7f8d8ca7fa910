"""Every file operation of a small study killed, or out of space, once: the same command then ends in the same rows, keys
and accuracies, and nothing is booked twice. Kills at random times: test_soak.py."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.errors import UserError
from benchmark.report.checks import check
from benchmark.run import workbench
from tests.harness.helpers import tiny_experiment
from tests.harness.test_runner import Lab, stages_of, summary_of

pytestmark = pytest.mark.slow

WRITING = ("replace", "link", "fsync")
OPERATIONS = (*WRITING, "unlink")
RECIPE = {"name": "t", "epochs": 3, "batch_size": 16, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def study(root: Path) -> None:
    """Two lives, a checkpoint after every epoch."""
    workbench.CHECKPOINT_S = 0.0
    Lab(root).run(tiny_experiment(root, recipe=RECIPE), tiny_experiment(root, recipe=RECIPE, seed=1))


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch):
    monkeypatch.setattr(workbench, "CHECKPOINT_S", 0.0)  # and back


def rows(root: Path):
    stages = stages_of(Lab(root)).sort_values(["seed", "key"])
    return stages[["key", "stage", "seed", "acc_pct"]].reset_index(drop=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    before = workbench.CHECKPOINT_S
    study(root)
    workbench.CHECKPOINT_S = before
    return rows(root)


class Injector:
    """Counts the file operations under a folder, and does something at one of them."""

    def __init__(self, monkeypatch, at: int = -1, do: Callable[[], None] = lambda: None, names=OPERATIONS) -> None:
        self.seen, self.at, self.do = 0, at, do
        for name in names:
            monkeypatch.setattr(os, name, self.counting(getattr(os, name)))
        monkeypatch.setattr(tempfile, "mkstemp", self.counting(tempfile.mkstemp))

    def counting(self, call):
        def counted(*args, **options):
            self.seen += 1
            if self.seen == self.at:
                self.do()
            return call(*args, **options)

        return counted


def full() -> None:
    raise OSError(28, "No space left on device")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> bool:
    """Do it in a forked child; whether it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # threads of the tracer may be alive: the child makes its own
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def assert_whole(root: Path, whole) -> None:
    study(root)
    found = rows(root)
    assert found.equals(whole), f"other rows, keys or accuracies under {root}"
    (summary,) = summary_of(Lab(root)).to_dict("records")
    assert summary["n_seeds"] == 2
    assert math.isfinite(summary["tec_wh"])
    assert [finding for finding in check(Lab(root).store) if finding.fault] == []
    # one of an inference measurement waits for the next on its device, which sees that it is booked
    left = [path for path in (root / "results" / "attempts").rglob("*.json") if "inference-" not in path.name]
    assert left == [], "journals of finished stages"
    assert list((root / "artifacts").glob("*.checkpoint")) == []


def count(monkeypatch, root: Path) -> int:
    with monkeypatch.context() as patch:
        injector = Injector(patch)
        study(root)
    return injector.seen


def why_it_ended(root: Path) -> str:
    try:
        study(root)
    except UserError as error:
        return str(error)
    return ""


def step(request) -> int:
    """Every fifth operation; in `make soak` every one."""
    return 1 if request.config.getoption("--kills") > 5 else 5


def test_file_operations_out_of_space_one_at_a_time(tmp_path, monkeypatch, whole, request):
    total = count(monkeypatch, tmp_path / "count")
    assert total > 40
    refused = 0
    for at in range(1, total + 1, step(request)):
        root = tmp_path / f"full{at}"
        with monkeypatch.context() as patch:
            Injector(patch, at, full, WRITING)
            said = why_it_ended(root)
        refused += bool(said)
        assert said == "" or "No space left on device" in said
        assert_whole(root, whole)
    assert refused > 3


def test_file_operations_killed_one_at_a_time(tmp_path, monkeypatch, whole, request):
    total = count(monkeypatch, tmp_path / "count")
    kills = 0
    for at in range(1, total + 1, step(request)):
        root = tmp_path / f"killed{at}"

        def work(root=root, at=at) -> None:
            with pytest.MonkeyPatch.context() as patch:
                Injector(patch, at, killed)
                study(root)

        kills += in_child(work)
        assert_whole(root, whole)
    assert kills > 6
