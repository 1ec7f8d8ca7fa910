"""Life cycles worked for real, tiny, on the CPU: once, again, without artifacts, broken off, and failing."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.energy import find_device
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report import rows
from benchmark.report.checks import check
from benchmark.report.summary import SummaryRow, summarise
from benchmark.run import workbench
from benchmark.run.schedule import work
from benchmark.run.turn import Turn
from benchmark.run.workbench import Site
from benchmark.run.worker import StageError, Worker
from tests.harness.helpers import lives_of, tiny_experiment, work_all

ROOT = Path(__file__).parents[2]


class Lab:
    """A results folder, and everything that was said while working in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.device = find_device("cpu")
        self.store = Store(root / "results", root / "artifacts")
        self.said: list[str] = []

    def run(self, *experiments, **options) -> list[str]:
        self.said = []
        wanted = [life for e in experiments for life in lives_of(e, self.device, self.store)]
        work_all(self.root, self.device, wanted, self.said.append, **options)
        return self.said


def stages_of(lab: Lab):
    return rows.frame(rows.stage_rows(Book.read(lab.store)), rows.StageRow)


def summary_of(lab: Lab):
    book = Book.read(lab.store)
    return rows.frame(summarise(book, rows.stage_rows(book)), SummaryRow)


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


def test_a_life_cycle_ends_in_rows(lab):
    lab.run(tiny_experiment(lab.root))
    stages = stages_of(lab)
    assert list(stages["kind"]) == ["TEC", "deploy", "IEC"]
    assert list(stages["phase"]) == ["base", "deploy", "infer"]
    assert (stages["energy_wh"][:2] > 0).all()
    assert stages["measuring_wh"][2] > 0
    assert math.isnan(stages["energy_wh"][2]), "the energy of measuring is no energy of a life"
    assert set(stages["grade"]) == {"E"}
    (summary,) = summary_of(lab).to_dict("records")
    tec, iec = summary["tec_wh"], summary["iec_wh"]
    assert tec == stages["energy_wh"][0]
    assert summary["g_1b"] == pytest.approx(summary["acc_pct"] ** 2 / (1e9 * iec + tec))
    assert summary["g_500m"] == pytest.approx(summary["acc_pct"] ** 2 / (5e8 * iec + tec))
    assert summary["acc_pct"] == summary["network_acc_pct"], "an fp32 engine must be as accurate as its network"
    assert summary["params"] == 3 * 9 * 8 + 2 * 8 + 32 * 10 + 10
    assert summary["spent_making_wh"] == pytest.approx(stages["energy_wh"][0] + stages["energy_wh"][1])
    assert not [finding for finding in check(lab.store) if finding.fault and "commit" not in finding.what]


def test_a_second_run_works_nothing_and_waits_for_nothing(lab, monkeypatch):
    lab.run(tiny_experiment(lab.root))
    waiting = SimpleNamespace(sleep=lambda seconds: pytest.fail(f"it waits {seconds} s"))
    monkeypatch.setattr("benchmark.run.schedule.time", waiting)
    before = sorted(path.stat().st_mtime_ns for path in lab.store.record_paths())
    said = lab.run(tiny_experiment(lab.root))
    assert len(said) == 3
    assert all(line.endswith("recorded") for line in said)
    assert sorted(path.stat().st_mtime_ns for path in lab.store.record_paths()) == before


def test_without_artifacts_it_still_answers_from_records(lab):
    lab.run(tiny_experiment(lab.root))
    table = stages_of(lab)
    shutil.rmtree(lab.store.artifacts)
    said = lab.run(tiny_experiment(lab.root))
    assert all(line.endswith("recorded") for line in said)
    assert stages_of(lab).equals(table)


def test_a_lost_network_that_is_needed_is_worked_again_and_booked_as_repeated(lab):
    lab.run(tiny_experiment(lab.root))
    first = stages_of(lab)
    shutil.rmtree(lab.store.artifacts)
    said = lab.run(tiny_experiment(lab.root), measure_again=True)
    assert any("is lost: the stage runs again and is booked as repeated" in line for line in said)
    now = stages_of(lab)
    assert now["energy_wh"][0] == first["energy_wh"][0]
    assert now["repeated_wh"][0] > 0 == first["repeated_wh"][0]
    summary = summary_of(lab).iloc[0]
    assert summary["tec_wh"] == first["energy_wh"][0]
    made = now[now["kind"] != "IEC"]
    assert summary["spent_making_wh"] == pytest.approx((made["energy_wh"] + made["repeated_wh"]).sum())
    assert (made["repeated_wh"] > 0).all()


def test_a_measurement_again_adds_a_record_and_rows_use_the_newest(lab):
    lab.run(tiny_experiment(lab.root))
    first = stages_of(lab).iloc[2]
    lab.run(tiny_experiment(lab.root), measure_again=True)
    second = stages_of(lab).iloc[2]
    assert first["key"] == second["key"]
    assert second["created"] > first["created"]
    assert len(lab.store.measurements(lab.device.machine, first["key"])) == 2


def test_networks_of_one_shape_share_a_measurement_and_another_shape_has_its_own(lab):
    wide = {"name": "wide", "builder": "tests.tiny:tiny", "kwargs": {"width": 12}}
    lab.run(tiny_experiment(lab.root), tiny_experiment(lab.root, seed=1), tiny_experiment(lab.root, model=wide))
    inference = stages_of(lab).query("kind == 'IEC'")
    assert len(inference) == 3
    keys = inference.groupby("model")["key"].unique()
    assert len(keys["tiny"]) == len(keys["wide"]) == 1
    assert keys["tiny"][0] != keys["wide"][0]
    groups = {
        record.group
        for key in (keys["tiny"][0], keys["wide"][0])
        for record in lab.store.measurements(lab.device.machine, key)
    }
    assert len(groups) == 1, "pending measurements of one device form one group"


def test_two_blocks_that_want_one_shape_measured_again_have_it_measured_once(lab):
    blocks = [lives_of(tiny_experiment(lab.root, seed=seed), lab.device, lab.store) for seed in (0, 1)]
    site = Site(lab.device, lab.store, lab.root / "data")
    for measured in (1, 2):
        work(Worker(site, lab.said.append), blocks, measure_again=True)
        (key,) = set(stages_of(lab).query("kind == 'IEC'")["key"])
        assert len(lab.store.measurements(lab.device.machine, key)) == measured


def test_seeds_are_averaged_and_their_spread_is_the_interval(lab):
    lab.run(tiny_experiment(lab.root), tiny_experiment(lab.root, seed=1))
    stages = stages_of(lab)
    (summary,) = summary_of(lab).to_dict("records")
    tec = stages.query("kind == 'TEC'")
    assert summary["n_seeds"] == 2
    assert summary["tec_wh"] == pytest.approx(tec["energy_wh"].mean())
    half_spread = tec["energy_wh"].std() / math.sqrt(2) * 12.7062
    own = math.fsum(tec["energy_ci95_wh"]) / 2
    assert summary["tec_ci95_wh"] == pytest.approx(math.hypot(half_spread, own), rel=1e-4)


def test_an_unfinished_experiment_has_a_row_that_names_its_gaps(lab):
    bad = {"name": "bad", "builder": "tests.tiny:tiny", "kwargs": {"width": "wide"}}
    with pytest.raises(StageError, match=r"train .* failed"):
        lab.run(tiny_experiment(lab.root, model=bad), tiny_experiment(lab.root))
    summary = summary_of(lab).set_index("model")
    assert summary.loc["bad", "missing"] == "seed 0: train, build_engine, inference"
    assert summary.loc["bad", "n_seeds"] == 0
    assert summary.loc["tiny", "missing"] == "", "one failure must not stop the other experiments"


def test_a_loss_that_is_no_number_keeps_what_was_spent(lab):
    recipe = {"name": "t", "epochs": 2, "batch_size": 32, "lr": 1e30, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    with pytest.raises(StageError, match=r"train .* failed: the training loss became"):
        lab.run(tiny_experiment(lab.root, recipe=recipe))
    (attempt,) = [json.loads(path.read_text()) for path in (lab.store.results / "attempts").rglob("*.json")]
    assert attempt["closed"]
    assert attempt["joules"] > 0
    assert lab.store.record_paths() == []


def test_who_is_ended_while_waiting_for_the_device_has_spent_nothing(lab, monkeypatch, capfd):
    def ended(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Turn, "alone", ended)
    with pytest.raises(KeyboardInterrupt):
        lab.run(tiny_experiment(lab.root))
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "stopped (" in line)
    assert "nothing was spent on it yet" in line
    assert "no checkpoint yet, so it begins again" in line
    assert "unknown" not in line


def test_an_interrupted_stage_books_lost_work_as_repeated(lab, monkeypatch):
    monkeypatch.setattr(workbench, "CHECKPOINT_S", 0.0)
    recipe = {"name": "t", "epochs": 6, "batch_size": 8, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    broken = tiny_experiment(lab.root, recipe=recipe)
    progress = workbench.Workbench.progress

    def stop(self, done, total, **shown):
        progress(self, done, total, **shown)
        if done > 3.5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workbench.Workbench, "progress", stop)
        with pytest.raises(KeyboardInterrupt):
            lab.run(broken)
    (spent,) = [json.loads(path.read_text())["joules"] for path in (lab.store.results / "attempts").rglob("*.json")]
    lab.run(broken)
    trained = next(record for record in lab.store.records() if record.fn == "methods.training:train")
    assert trained.attempts == 2
    assert 0 < trained.repeated_joules < spent
    assert trained.joules > spent - trained.repeated_joules
    assert list((lab.store.results / "attempts").rglob("*.json")) == []
    assert not list(lab.store.artifacts.glob("*.checkpoint"))


INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job passes on that it is ignored
"""
CHILD = """
import sys
from pathlib import Path
from benchmark.run import workbench
from tests.harness.helpers import lives_of, tiny_experiment, work_all
from tests.harness.test_runner import Lab
import torch
torch.set_num_threads(1)
workbench.CHECKPOINT_S = workbench.JOURNAL_S = 0.0
recipe = {"name": "t", "epochs": 16, "batch_size": 8, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
root = Path(sys.argv[1])
scale = {"name": "test", "train_images": 512, "test_images": 32}
Lab(root).run(tiny_experiment(root, recipe=recipe, scale=scale))
"""


def _child(root: Path, *before: str, code: str = INTERRUPTIBLE + CHILD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, str(root)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def _await_checkpoint(child: subprocess.Popen[str], root: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(root.glob("artifacts/*.checkpoint")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.05)


def _network(root: Path) -> bytes:
    store = Store(root / "results", root / "artifacts")
    (trained,) = (record for record in store.records() if record.fn == "methods.training:train")
    return store.outputs.path(trained.key, trained.artifact).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_middle_of_an_epoch_it_resumes_to_the_same_network(tmp_path, how):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    child = _child(broken)
    _await_checkpoint(child, broken)
    child.send_signal(how)
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0, "the child was done before it could be killed"
    assert not list(broken.glob("results/records/*/*.json")), "killed too late to prove anything"
    if how is not signal.SIGKILL:
        assert "interrupted; the same command resumes it" in errors
    for root in (broken, whole):
        again = _child(root)
        _, errors = again.communicate(timeout=120)
        assert again.returncode == 0, errors
    assert _network(broken) == _network(whole)
    record = next(r for r in Store(broken / "results", broken / "artifacts").records() if "train" in r.fn)
    assert record.attempts == 2
    assert ("was killed: up to" in record.reason) == (how is signal.SIGKILL)


@pytest.mark.slow
def test_a_background_job_ignores_an_interrupt_and_ends_in_order_when_terminated(tmp_path):
    """What it was started with is meant: a shell's background jobs and nohup's ignore SIGINT, or Ctrl-C would end them."""
    child = _child(tmp_path, "sh", "-c", 'trap "" INT; exec "$@"', "sh", code=CHILD)
    _await_checkpoint(child, tmp_path)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None, "the interrupt should have been ignored"
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0, "the child was done before it could be terminated"
    assert "interrupted; the same command resumes it" in errors
    assert not list(tmp_path.glob("results/records/*/*.json"))


@pytest.mark.slow
def test_two_processes_at_once_work_each_stage_once(tmp_path):
    children = [_child(tmp_path) for _ in range(2)]
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    trained = [record for record in store.records() if record.fn == "methods.training:train"]
    assert len(trained) == 1
    assert not any(record.repeat for record in store.records())
