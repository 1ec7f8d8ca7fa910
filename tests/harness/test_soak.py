"""One small study of several families, killed at random moments, worked by two processes at once, and by Ray: the same
keys, accuracies and energies as when one process works it undisturbed. On a meter that counts steps."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.checks import check

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STUDY = """\
- overrides: [scale=smoke, data=synthetic, engine=torch, model=repdistiller/resnet8, recipe=check]
  sweep:
    method: [baseline, pruning/l1, pruning/taylorfo]
- overrides: [scale=smoke, data=synthetic, engine=torch, pair=resnet14__resnet8, recipe=check, method=distillation/kd]
"""
SMALL = [
    "scale.train_images=128", "scale.test_images=64", "scale.max_epochs=3", "inference.window_s=0.1",
    "inference.windows=2", "inference.idle_s=0.02",
]  # fmt: skip


class Folder:
    """A results folder, and processes that work the study on it."""

    def __init__(self, root: Path) -> None:
        (root / "own/experiment").mkdir(parents=True)
        (root / "own/experiment/soak.yaml").write_text(STUDY)
        self.root = root
        self.store = Store(root / "r", root / "a")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        environment["ENERGY_LOCK_DIR"] = str(self.root / "locks")
        command = [
            sys.executable, "-c", "import sys; from tests.harness.counted import main; sys.exit(main())", "study", "--config-dir", str(self.root / "own"),
            "experiment=soak", "hardware=cpu", f"paths.results={self.root}/r", f"paths.artifacts={self.root}/a",
            *SMALL, *words,
        ]  # fmt: skip
        with (self.root / f"said-{time.monotonic_ns()}.txt").open("wb") as said:
            return subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.root.glob("said-*.txt")))

    def stages(self) -> pd.DataFrame:
        return pd.read_csv(self.root / "r/stages.csv").sort_values(["method", "key"]).reset_index(drop=True)


def ended(process: subprocess.Popen[bytes], limit_s: float = 900) -> int:
    """The exit status of a study. One that takes too long is killed: left behind, it would disturb the tests after it."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    assert ended(folder.start()) == 0, folder.said()
    folder.took_s = time.monotonic() - began
    return folder


def assert_same(folder: Folder, whole: Folder) -> None:
    """The same stages with the same accuracies and useful energies, each recorded once, and no fault."""
    found, wanted = folder.stages(), whole.stages()
    exact = ["method", "model", "stage", "phase", "key", "acc_pct"]
    pd.testing.assert_frame_equal(found[exact], wanted[exact])
    steps = wanted["energy_wh"] > 1e-5  # what steps no optimizer is the noise of the sampler here
    assert steps.sum() >= 8
    # what is paused is interpolated between two samples, so up to a step may lie on the other side; an epoch has four
    one_step_wh = 1 / 3600
    same_steps = pytest.approx(wanted["energy_wh"][steps].tolist(), rel=0.02, abs=one_step_wh)
    assert found["energy_wh"][steps].tolist() == same_steps
    assert [finding for finding in check(folder.store) if finding.fault] == []
    book = Book.read(folder.store)
    assert book.unreadable == []
    assert book.repeats == {}, "no stage was run twice"
    assert len(book.firsts) == len(Book.read(whole.store).firsts)
    assert not list((folder.root / "a").glob("*.checkpoint"))


def test_killed_at_random_moments_it_ends_in_the_same_table(tmp_path, whole, request):
    draw, left, killed = random.Random(17), request.config.getoption("--kills"), 0
    while left > 0:
        folder = Folder(tmp_path / f"soak{left}")
        for _ in range(5):  # at most so many kills a study: a stage must come to its end now and then
            process = folder.start()
            time.sleep(draw.uniform(2.0, 0.6 * whole.took_s))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            left -= 1
        assert ended(folder.start()) == 0, folder.said()
        assert_same(folder, whole)
    assert killed > 0


def test_two_processes_at_once_share_the_work(tmp_path, whole):
    folder = Folder(tmp_path / "two")
    processes = [folder.start(), folder.start()]
    assert [ended(process) for process in processes] == [0, 0], folder.said()
    assert_same(folder, whole)


def test_one_of_two_processes_is_killed_and_the_other_takes_over(tmp_path, whole):
    folder = Folder(tmp_path / "killed")
    first, second = folder.start(), folder.start()
    time.sleep(0.5 * whole.took_s)
    first.kill()
    first.wait()
    assert ended(second) == 0, folder.said()
    assert_same(folder, whole)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra [ray]")
def test_two_workers_of_ray_share_the_work(tmp_path, whole):
    folder = Folder(tmp_path / "ray")
    assert ended(folder.start("executor=ray", "hardware.workers=2")) == 0, folder.said()
    assert "2 worker(s)" in folder.said()
    niceness = {record.provenance["niceness"] for record in Book.read(folder.store).records()}
    assert niceness == {os.getpriority(os.PRIO_PROCESS, 0)}, "Ray's own workers would wait for everybody else"
    assert_same(folder, whole)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * (1 << 16))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_loses_nothing_measured(tmp_path, whole):
    folder = Folder(tmp_path / "full")
    (folder.root / "r").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder.root / "r")], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        ballast = folder.root / "r" / "ballast"
        process = folder.start()
        deadline = time.monotonic() + 120
        while not folder.store.record_paths() and time.monotonic() < deadline:
            time.sleep(0.02)
        fill(ballast)
        assert ended(process) == 1, folder.said()
        assert folder.said().count("No space left on device") >= 1
        assert "Traceback" not in folder.said()
        kept = {path: path.read_bytes() for path in folder.store.record_paths()}
        assert kept
        ballast.unlink()
        assert ended(folder.start()) == 0, folder.said()
        assert {path: path.read_bytes() for path in kept} == kept
        assert_same(folder, whole)
    finally:
        subprocess.run(["umount", "-l", str(folder.root / "r")], check=False)
