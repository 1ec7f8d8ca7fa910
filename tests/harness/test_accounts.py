"""What a stage spent over several attempts: by which meters, repeated or not, and what damage to the books costs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path

import pytest

from benchmark.common import show_tables
from benchmark.energy import DeviceError, DeviceLock, EnergyTracer, Reading
from benchmark.energy.meters import rapl
from benchmark.plan.asked import Asked
from benchmark.report.checks import check
from benchmark.run import workbench
from benchmark.run.account import Account, Attempt, Earlier, Share
from benchmark.run.worker import StageError, Worker
from tests.harness.helpers import tiny_experiment
from tests.harness.test_runner import Lab, summary_of

UNDER = {"commit": "abc", "torch": "2.13.0", "driver": ""}
SIX_EPOCHS = {"name": "t", "epochs": 6, "batch_size": 8, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


def reading(joules: float, ci95: float, source: str, grade: str, reason: str = "") -> Reading:
    return Reading("w", joules, ci95, 10.0, 0.0, 0.0, source, grade, reason)


ESTIMATED = Share.of(reading(184.0, 144.0, "estimate:tdp_load", "E"), UNDER)


def test_parts_by_two_meters_keep_both_names_the_worst_grade_and_the_sum_of_their_uncertainties():
    last = reading(56.0, 0.24, "rapl:package-0", "R")
    account = Account.of_attempts(last, Share.of(last, UNDER), {"first": ESTIMATED}, Earlier({}, ()))
    assert account.joules == 240.0
    assert account.ci95_joules == pytest.approx(144.24)
    assert (account.grade, account.source) == ("E", "mixed(estimate:tdp_load, rapl:package-0)")
    assert "its attempts ran by several meters: estimate:tdp_load, then rapl:package-0" in account.reason
    assert account.seconds == 20.0


@pytest.mark.parametrize("name", ["torch", "commit", "driver"])
def test_parts_under_two_versions_name_both(name):
    last = reading(56.0, 0.24, "nvml:counter", "B")
    before = Share.of(last, {**UNDER, name: "old"})
    account = Account.of_attempts(last, Share.of(last, {**UNDER, name: "new"}), {"first": before}, Earlier({}, ()))
    assert f"under several versions of {name}: old, then new" in account.reason
    assert account.source == "nvml:counter"


def test_who_used_the_processor_is_told_over_all_attempts():
    last = dataclasses.replace(reading(5.0, 0.1, "rapl:package-0", "R"), seconds=20.0, own_cores=1.0, others_cores=3.0)
    long = dataclasses.replace(last, seconds=3580.0, others_cores=0.0)
    earlier = Earlier({}, ())
    account = Account.of_attempts(last, Share.of(last, UNDER), {"first": Share.of(long, UNDER)}, earlier)
    assert account.reading["others_cores"] == pytest.approx(3.0 * 20 / 3600)
    assert account.reading["own_cores"] == pytest.approx(1.0)
    silent = Share.of(dataclasses.replace(long, others_cores=math.nan), UNDER)
    account = Account.of_attempts(last, Share.of(last, UNDER), {"first": silent}, earlier)
    assert account.reading["others_cores"] is None


def test_a_part_that_nobody_measured_makes_the_whole_unknown():
    lost = Share.of(reading(math.nan, math.nan, "nvml:counter", "X", "the GPU was lost"), UNDER)
    last = reading(56.0, 0.24, "nvml:counter", "B")
    account = Account.of_attempts(last, Share.of(last, UNDER), {"first": lost}, Earlier({}, ()))
    assert math.isnan(account.joules)
    assert (account.grade, account.reason) == ("X", "the GPU was lost")


def test_a_killed_attempt_is_booked_up_to_its_bound():
    killed = Attempt(
        id="a", key="k", joules=100.0, max_w=20.0, seconds=9.0, longest_gap_s=4.0, at="now", closed=False
    )  # fmt: skip  # one value a line would hide the shape
    last = reading(56.0, 0.24, "rapl:package-0", "R")
    share = Share.of(reading(30.0, 1.0, "rapl:package-0", "R"), UNDER)
    account = Account.of_attempts(last, Share.of(last, UNDER), {"a": share}, Earlier({"a": killed}, ()))
    assert account.repeated_joules == 100.0 + 20.0 * 8.0 - 30.0
    assert "attempt a was killed: up to 160 J" in account.reason


def broken_off(lab: Lab, monkeypatch, after: float = 3.5, **options) -> None:
    """Train with a checkpoint after each epoch, and break off."""
    monkeypatch.setattr(workbench, "CHECKPOINT_S", 0.0)
    progress = workbench.Workbench.progress

    def stop(self, done, total, **shown):
        progress(self, done, total, **shown)
        if done > after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workbench.Workbench, "progress", stop)
        with pytest.raises(KeyboardInterrupt):
            lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS), **options)


def test_what_an_interrupted_stage_spent_is_told_until_its_record_holds_it(lab, monkeypatch, capsys):
    broken_off(lab, monkeypatch)
    show_tables(lab.store, Asked(tau=2.0))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("in no row yet")]
    assert "1 attempt(s) at stages that have not ended spent ~" in line
    lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    show_tables(lab.store, Asked(tau=2.0))
    assert "in no row yet" not in capsys.readouterr().out


def trained(lab: Lab):
    return [record for record in lab.store.records() if record.fn == "methods.training:train"]


@pytest.mark.slow
def test_a_stage_resumed_under_another_meter_says_so_and_counts_as_estimated(lab, monkeypatch, tmp_path):
    """Estimate, then RAPL: what was measured last vouches for no more than its own part."""
    broken_off(lab, monkeypatch)
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, words in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", str(2**40))):
        (zone / name).write_text(words)
    monkeypatch.setattr(
        rapl, "_read_int", lambda path: 2**40 if "range" in path.name else int(5e6 * time.process_time())
    )
    opened = rapl.open_rapl(zone.parent)
    monkeypatch.setattr("benchmark.energy.timeline.host_recorder.open_rapl", lambda root: opened)
    lab.device = dataclasses.replace(lab.device, source="rapl:package-0", grade_best="R")
    lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    (record,) = trained(lab)
    assert record.source == "mixed(estimate:tdp_load, rapl:package-0)"
    assert record.grade == "E"
    assert record.ci95_joules > 0.1 * record.joules, "the estimate's uncertainty stays in the sum"
    (summary,) = summary_of(lab).to_dict("records")
    assert "mixed" in summary["energy_source"]
    assert summary["grade"] == "E"
    assert any("estimated, in a table of measured results" in finding.what for finding in check(lab.store))


@pytest.mark.parametrize(
    "content",
    [b"", *(pytest.param(each, marks=pytest.mark.slow) for each in (b"{", b"[]", b'{"id": "x"}', b"\xff\xfe"))],
)
def test_a_damaged_journal_costs_the_knowledge_of_what_was_repeated_and_nothing_else(lab, monkeypatch, content):
    broken_off(lab, monkeypatch)
    (journal,) = (lab.store.results / "attempts").rglob("*.json")
    journal.write_bytes(content)
    lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    (record,) = trained(lab)
    assert record.joules > 0
    assert math.isnan(record.repeated_joules)
    assert f"the journal {journal.name} of an earlier attempt is damaged" in record.reason
    assert record.attempts == 2
    assert not list((lab.store.results / "attempts").rglob("*.json"))


@pytest.mark.parametrize("content", [b"rubbish", pytest.param(b"", marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_refused_before_any_work_is_done(lab, monkeypatch, content):
    broken_off(lab, monkeypatch)
    (checkpoint,) = lab.store.artifacts.glob("*.checkpoint")
    checkpoint.write_bytes(content)
    with pytest.raises(StageError, match=r"checkpoint .* is damaged .* delete it to start the stage again"):
        lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    checkpoint.unlink()
    lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    (record,) = trained(lab)
    assert record.repeated_joules > 0
    assert record.attempts == 3


@pytest.mark.slow
def test_what_a_kill_between_record_and_clean_up_leaves_is_booked_once(lab, monkeypatch):
    """The record accounts for it: a later re-run of the stage neither resumes it nor books it again."""
    with monkeypatch.context() as patch:
        patch.setattr(workbench.Workbench, "forget", lambda self: None)
        broken_off(lab, monkeypatch)
        lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    (first,) = trained(lab)
    assert list(lab.store.artifacts.glob("*.checkpoint"))
    for path in lab.store.outputs.copies(first.key):
        path.unlink()
    for path in lab.store.record_paths():
        if first.key not in path.name:
            path.unlink()  # the engine is to be built again, from a network that is lost
    lab.run(tiny_experiment(lab.root, recipe=SIX_EPOCHS))
    (again,) = (record for record in trained(lab) if record.repeat)
    assert again.repeated_joules == 0
    assert again.attempts == 1
    assert again.values["acc_pct"] == first.values["acc_pct"]
    assert not list(lab.store.artifacts.glob("*.checkpoint"))


def test_an_interrupted_inference_measurement_is_booked_by_the_next(lab, monkeypatch):
    def stop(self, *_, **__):
        time.sleep(0.05)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workbench.Workbench, "cost", stop)
        with pytest.raises(KeyboardInterrupt):
            lab.run(tiny_experiment(lab.root))
    (journal,) = (lab.store.results / "attempts").rglob("inference-*.json")
    spent = json.loads(journal.read_text())
    assert spent["closed"]
    assert spent["joules"] > 0
    lab.run(tiny_experiment(lab.root))
    (measured,) = (record for record in lab.store.records() if record.group)
    assert measured.repeated_joules == pytest.approx(spent["joules"])
    assert not list((lab.store.results / "attempts").rglob("*.json"))


def test_a_measurement_under_way_elsewhere_is_not_booked_as_lost(lab, monkeypatch):
    """Another process measures while this one waits for the device, and is done when it gets it."""
    machine, measuring = lab.device.machine, {"on": False}
    other = {
        "id": "other", "key": "inference", "joules": 99.0, "max_w": 1.0, "seconds": 1.0, "longest_gap_s": 0.0,
        "at": "now", "closed": False, "host": os.uname().nodename, "device_uuid": lab.device.uuid,
    }  # fmt: skip  # one value a line would hide the shape
    make = Worker._bench

    def bench(self, title, key):
        if key == "inference":
            lab.store.write_attempt(machine, key, other)
            measuring["on"] = True
        return make(self, title, key)

    acquire = DeviceLock.acquire

    def acquired(lock):
        acquire(lock)
        if measuring["on"]:
            lab.store.clear_attempts(machine, "inference", {"other"})

    monkeypatch.setattr(Worker, "_bench", bench)
    monkeypatch.setattr(DeviceLock, "acquire", acquired)
    lab.run(tiny_experiment(lab.root))
    (measured,) = (record for record in lab.store.records() if record.group)
    assert measured.repeated_joules == 0


def test_a_tracer_that_would_not_measure_is_refused_before_any_work(lab, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(DeviceError, match=r"no energy would be measured: local rank 1 does not trace.*LOCAL_RANK"):
        lab.run(tiny_experiment(lab.root))
    assert lab.store.record_paths() == []
    assert not list((lab.store.results / "attempts").rglob("*.json"))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_an_error_that_cannot_be_printed_is_still_the_one_that_is_told(lab, monkeypatch):
    def fail(self, *_, **__):
        raise Unprintable

    monkeypatch.setattr(workbench.Workbench, "progress", fail)
    with pytest.raises(StageError, match="Unprintable: it cannot be printed"):
        lab.run(tiny_experiment(lab.root))


@pytest.mark.slow
def test_two_interrupts_still_close_the_account(lab, monkeypatch):
    """The second comes while the first is being booked."""
    real = EnergyTracer.window

    def window(self, *args, **options):
        made = real(self, *args, **options)
        leave = type(made).__exit__

        class Twice(type(made)):
            def __exit__(self, *args):
                if args[0] is KeyboardInterrupt:
                    raise KeyboardInterrupt
                leave(self, *args)

        made.__class__ = Twice
        return made

    monkeypatch.setattr(EnergyTracer, "window", window)
    broken_off(lab, monkeypatch)
    (journal,) = (lab.store.results / "attempts").rglob("*.json")
    assert json.loads(journal.read_text())["closed"]


class Locks:
    """Which locks were held while what happened."""

    def __init__(self, monkeypatch, device) -> None:
        self.held, self.seen = 0, {}
        self.device = device
        for name, by in (("acquire", 1), ("release", -1)):
            real = getattr(DeviceLock, name)

            def counted(lock, real=real, by=by):
                real(lock)
                self.held += by

            monkeypatch.setattr(DeviceLock, name, counted)
        monkeypatch.setattr(Worker, "_work", self.noting(Worker._work, "stage"))
        monkeypatch.setattr("benchmark.deploy.measure.measure_group", self.noting(self.measure(), "inference"))

    @staticmethod
    def measure():
        from benchmark.deploy.measure import measure_group

        return measure_group

    def noting(self, call, name):
        def noted(*args, **options):
            self.seen.setdefault(name, set()).add(self.held > 0)
            return call(*args, **options)

        return noted


@pytest.mark.parametrize(("source", "stage"), [("estimate:tdp_load", False), ("rapl:package-0", True)])
def test_what_a_meter_shares_is_locked_and_no_more(lab, monkeypatch, source, stage):
    """RAPL counts everybody's joules: whole stages. An estimate counts our own, but two measurements share the cores."""
    lab.device = dataclasses.replace(lab.device, source=source)
    locks = Locks(monkeypatch, lab.device)
    lab.run(tiny_experiment(lab.root))
    assert locks.seen == {"stage": {stage}, "inference": {True}}
    assert locks.held == 0


def test_a_lock_that_cannot_be_taken_at_all_is_told_before_the_first_stage(lab, monkeypatch, tmp_path):
    (tmp_path / "locks").write_text("no folder")
    monkeypatch.setenv("ENERGY_LOCK_DIR", str(tmp_path / "locks"))
    with pytest.raises(DeviceError, match=r"cannot lock .*ENERGY_LOCK_DIR"):
        lab.run(tiny_experiment(lab.root))
    assert lab.store.record_paths() == []


def test_the_folder_of_locks_has_one_setting_whatever_tmpdir_says(lab, monkeypatch, tmp_path):
    monkeypatch.delenv("ENERGY_LOCK_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert DeviceLock(lab.device).path.parent == Path("/tmp/energy-locks")
    monkeypatch.setenv("ENERGY_LOCK_DIR", str(tmp_path / "locks"))
    assert DeviceLock(lab.device).path.parent == tmp_path / "locks"
