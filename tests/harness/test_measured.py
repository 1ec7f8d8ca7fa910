"""A whole life cycle on a measured board: the compiled fake driver under the real pynvml, the arithmetic on the CPU.

Only `ready` is replaced, for this torch has no CUDA; windows, meters, records, rows and checks are the real ones.
"""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from benchmark.energy import find_device
from benchmark.records.artifacts import Artifacts
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report import rows
from benchmark.report.checks import check
from benchmark.report.summary import SummaryRow, summarise
from benchmark.run.worker import StageError
from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not
from tests.harness.helpers import lives_of, tiny_experiment, work_all

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

FAST = {
    "tick_s": 0.02,
    "tick_phase_s": 0.007,
    "power_period_s": 0.02,
    "instant_window_s": 0.02,
    "average_window_s": 0.02,
}
BOARD = Curve("constant", lo_w=250, hi_w=250)
PROTOCOL = {
    "idle_s": 0.1, "warmup_s": 0.6, "warmup_cap_s": 2, "window_s": 0.3, "windows": 3, "curve_window_s": 0.2, "batch_sizes": [8],
}  # fmt: skip  # one value a line would hide the shape


class MeasuredLab:
    def __init__(self, root, monkeypatch) -> None:
        self.root = root
        self.store = Store(root / "results", root / "artifacts")
        monkeypatch.setattr("benchmark.energy.meters.nvml._LIBRARY", None)
        monkeypatch.setattr("benchmark.run.worker.ready", lambda device: lambda: None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def run(self, board: int = 0, **task) -> str:
        device = dataclasses.replace(find_device(f"cuda:{board}"), torch_name="cpu")
        self.work(device, self.experiment(**task))
        return device.uuid

    def experiment(self, **task):
        scale = {"name": "test", "train_images": 3000, "test_images": 64}
        recipe = {"name": "t", "epochs": 3, "batch_size": 16, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        return tiny_experiment(self.root, **{"scale": scale, "recipe": recipe, **task}, inference=PROTOCOL)

    def name(self, experiment, device) -> str:
        (life,) = lives_of(experiment, device, self.store)
        return life.name

    def work(self, device, experiment) -> None:
        work_all(self.root, device, lives_of(experiment, device, self.store))

    def stages(self):
        return rows.frame(rows.stage_rows(Book.read(self.store)), rows.StageRow)

    def summary(self):
        book = Book.read(self.store)
        return rows.frame(summarise(book, rows.stage_rows(book)), SummaryRow)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return MeasuredLab(tmp_path, monkeypatch)


@pytest.mark.slow
def test_every_number_of_a_measured_life_cycle_knows_its_meter_and_its_board(lab):
    with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST) as driver:
        uuid = lab.run()
        assert uuid == driver.uuid()
        stages = lab.stages()
    assert set(stages["device_uuid"]) == {uuid}
    assert stages["machine"].str.endswith("-700w").all()
    measured = stages[stages["kind"] != "deploy"]
    assert measured["energy_source"].str.startswith("nvml:").all()
    spent = measured["energy_wh"].fillna(measured["measuring_wh"])
    assert (measured["gpu_wh"] - spent).abs().max() < 1e-12
    # a busy machine delays reads, and the row says so: the board's 250 W must lie in the interval that the row states
    (train,) = measured[measured["energy_wh"].notna()].to_dict("records")
    off = abs(train["mean_power_w"] - 250) / 250
    assert off <= train["energy_ci95_wh"] / train["energy_wh"], "the board draws 250 W, whatever it does"
    assert measured["mean_power_w"].between(225, 275).all()
    assert (measured["cpu_wh"] >= 0).all()
    iec = stages[stages["kind"] == "IEC"].iloc[0]
    assert iec["iec_dynamic_wh"] == pytest.approx(0, abs=0.05 * iec["iec_wh"]), "idle draws as much as work here"
    (summary,) = lab.summary().to_dict("records")
    assert summary["grade"] in "ABCD"
    faults = [finding for finding in check(lab.store) if finding.fault]
    assert faults == []


@pytest.mark.slow
def test_a_lost_board_is_nan_with_its_reason_and_never_stops_the_work(lab):
    with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST) as driver:
        driver.set(lost=f"{driver.now_s() + 0.3:.3f}")
        lab.run()
    train = next(record for record in lab.store.records() if record.fn == "methods.training:train")
    assert train.joules != train.joules
    assert "lost" in train.reason
    assert 0 <= train.values["acc_pct"] <= 100
    (summary,) = lab.summary().to_dict("records")
    assert summary["tec_wh"] != summary["tec_wh"]
    assert summary["g_1b"] != summary["g_1b"]
    assert summary["grade"] == "X"


@pytest.mark.slow
def test_stages_of_one_life_on_two_boards_are_a_fault_and_seeds_on_two_boards_are_none(lab):
    """Both boards are one machine, so a life that was begun on one may go on on the other."""

    def faults():
        return [finding.where for finding in check(lab.store) if "different boards" in finding.what and finding.fault]

    with FakeDriver(shared_library(), BOARD, gpus=2, processes="self:500", **FAST):
        lab.run(board=0)
        lab.run(board=1, seed=1)
        assert faults() == []
        device = dataclasses.replace(find_device("cuda:1"), torch_name="cpu")
        steps = {"_target_": "tests.harness.two_steps.TwoSteps", "name": "two_steps"}
        longer = lab.experiment().model_copy(update={"method": steps})
        lab.work(device, longer)  # rests on what board 0 trained
    assert faults() == [lab.name(longer, device)]


@pytest.mark.slow
def test_an_estimate_among_measured_rows_is_a_fault(lab):
    with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST):
        lab.run()
    lab.work(find_device("cpu"), tiny_experiment(lab.root))
    found = [finding.what for finding in check(lab.store) if finding.fault]
    assert found
    assert all("is estimated, in a table of measured results" in what for what in found)


@pytest.mark.slow
def test_trained_on_one_machine_and_measured_on_another_is_labelled_so(lab):
    """The paper trained on a P100 and measured on a TITAN V: training is not worked again, and each row names its machine."""
    cpu = find_device("cpu")
    lab.work(cpu, tiny_experiment(lab.root))
    with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST):
        board = dataclasses.replace(find_device("cuda:0"), torch_name="cpu")
        elsewhere = tiny_experiment(lab.root, inference=PROTOCOL, train_hardware=cpu.machine)
        lab.work(board, elsewhere)
    trained = [record for record in lab.store.records() if record.fn == "methods.training:train"]
    assert len(trained) == 1
    summary = lab.summary().set_index("infer_machine").loc[board.machine]
    assert summary["train_machine"] == cpu.machine
    assert summary["n_seeds"] == 1
    assert set(summary["energy_source"].split("+")) > {"estimate:tdp_load"}
    assert summary["grade"] == "E", "a number made of an estimate is an estimate"


def test_what_belongs_to_another_machine_is_not_trained_here(lab):
    cpu = find_device("cpu")
    lab.work(cpu, tiny_experiment(lab.root))
    shutil.rmtree(lab.store.artifacts)
    with FakeDriver(shared_library(), BOARD, processes="self:500", **FAST):
        board = dataclasses.replace(find_device("cuda:0"), torch_name="cpu")
        with pytest.raises(StageError, match=f"train .* belongs to {cpu.machine}, and this machine is {board.machine}"):
            lab.work(board, tiny_experiment(lab.root, inference=PROTOCOL, train_hardware=cpu.machine))


@pytest.mark.slow
def test_records_are_plain_json_without_nan(lab):
    with FakeDriver(shared_library(), BOARD, **FAST):
        lab.run()
    paths = lab.store.record_paths()
    assert len(paths) == 3
    for path in paths:
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_the_board_is_taken_before_any_stage_and_given_back(lab, monkeypatch):
    """The other order lets two studies wait for each other for ever."""
    events: list[str] = []

    class Lock:
        def __init__(self, device, **options) -> None: ...

        def acquire(self) -> None:
            events.append("board")

        def release(self) -> None:
            events.append("board given back")

    held = Artifacts.working_on

    def watched(self, key, waiting):
        events.append("stage")
        return held(self, key, waiting)

    monkeypatch.setattr("benchmark.run.turn.DeviceLock", Lock)
    monkeypatch.setattr(Artifacts, "working_on", watched)
    with FakeDriver(shared_library(), BOARD, **FAST):
        lab.run()
        first = list(events)
        events.clear()
        lab.run()
    assert first[0] == "board"
    assert first[-1] == "board given back"
    assert first.count("board") == 1
    assert events == [], "what is recorded needs no board"
