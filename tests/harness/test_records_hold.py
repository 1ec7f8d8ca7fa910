"""Identity: what is stored is what was run. Changed plans, lost and foreign artifacts, strangers' folders, rows alike."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest

from benchmark.energy import find_device
from benchmark.plan.life import Life
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report import rows
from benchmark.report.checks import check
from benchmark.report.columns import names
from benchmark.report.document import document
from benchmark.report.summary import SummaryRow, grade, summarise
from benchmark.run.free import removable
from benchmark.run.worker import StageError
from methods.baseline import Training
from tests.harness import two_steps
from tests.harness.helpers import lives_of, tiny_experiment, work_all


class Lab:
    """A results folder and what was said while working in it."""

    def __init__(self, root) -> None:
        self.root, self.said = root, []
        self.device = find_device("cpu")
        self.store = Store(root / "results", root / "artifacts")

    def experiment(self, method=None, **task):
        plain = tiny_experiment(self.root, **task)
        steps = {"_target_": "tests.harness.two_steps.TwoSteps", "name": "two_steps", **(method or {})}
        return plain if method is None else plain.model_copy(update={"method": steps})

    def lives(self, *experiments) -> list[Life]:
        return [life for each in experiments for life in lives_of(each, self.device, self.store)]

    def run(self, *experiments, **options):
        self.said = []
        work_all(self.root, self.device, self.lives(*experiments), self.said.append, **options)
        return self.said

    def book(self) -> Book:
        return Book.read(self.store)

    def rows(self):
        return rows.stage_rows(self.book())

    def summary(self) -> list[SummaryRow]:
        return summarise(self.book(), self.rows())


@pytest.fixture
def lab(tmp_path) -> Lab:
    two_steps.LOOKED.clear()
    return Lab(tmp_path)


# --- a run file keeps its plan --------------------------------------------------------------------------------------


def test_raising_a_stages_version_empties_no_row_and_says_what_is_done_anew(lab, monkeypatch):
    lab.run(lab.experiment({}))
    (before,) = lab.summary()
    monkeypatch.setattr(Training.model_fields["version"], "default", 2)
    Training.model_rebuild(force=True)
    try:
        assert lab.summary() == [before], "the row is what it was"
        assert not [finding for finding in check(lab.store) if finding.fault and "commit" not in finding.what]
        said = lab.run(lab.experiment({}))
    finally:
        monkeypatch.undo()
        Training.model_rebuild(force=True)
    notes = [line for line in said if line.startswith("note: ")]
    assert "train" in notes[0]
    assert "its version was raised from 1 to 2" in notes[0]
    assert "look" in notes[1]
    assert "it rests on train" in notes[1]
    old, new = sorted(lab.summary(), key=lambda row: row.experiment != before.experiment)
    assert old.n_seeds == new.n_seeds == 1, "an older plan stays a row of its own"
    assert (old.settings, new.settings) == ("version.train=1", "version.train=2")


def test_a_report_imports_no_method_and_plans_nothing(lab, monkeypatch):
    lab.run(lab.experiment({}))
    (before,) = lab.summary()
    for name in ("methods", "tests.harness.two_steps", "benchmark.plan.life", "benchmark.plan.config"):
        monkeypatch.setitem(__import__("sys").modules, name, None)  # an import of it fails
    assert lab.summary() == [before]


def test_a_measurement_of_another_version_fills_the_row_it_was_made_for(lab, monkeypatch):
    """Its key changes with its version; what was measured, and how, does not."""
    from benchmark.plan.deployment import Measurement

    lab.run(lab.experiment())
    (before,) = lab.summary()
    monkeypatch.setattr(Measurement.model_fields["version"], "default", 2)
    Measurement.model_rebuild(force=True)
    try:
        (after,) = lab.summary()
    finally:
        monkeypatch.undo()
        Measurement.model_rebuild(force=True)
    assert after == before
    assert after.n_seeds == 1


def test_records_that_no_run_reaches_are_named(lab):
    lab.run(lab.experiment())
    shutil.rmtree(lab.store.results / "runs")
    found = [finding.what for finding in check(lab.store) if "is reached by no run" in finding.what]
    assert len(found) == 3
    assert lab.rows() == []


# --- whatever a stage hands on is kept --------------------------------------------------------------------------------


def test_a_stage_that_hands_on_numbers_alone_is_worked_once(lab):
    lab.run(lab.experiment({}))
    assert two_steps.LOOKED == ["look"]
    lab.run(lab.experiment({"factor": 2.0}))
    assert two_steps.LOOKED == ["look"], "its output was kept for whoever rests on it"
    assert not any(record.repeat for record in lab.store.records())


def test_after_artifacts_were_deleted_it_is_worked_again_and_booked_as_repeated(lab):
    lab.run(lab.experiment({}))
    shutil.rmtree(lab.store.artifacts)
    lab.run(lab.experiment({"factor": 2.0}))
    assert two_steps.LOOKED == ["look", "look"]
    repeats = [record.fn.rpartition(":")[2] for record in lab.store.records() if record.repeat]
    assert sorted(repeats) == ["look", "train"]


def test_what_no_unfinished_life_needs_can_be_freed_and_rows_stay(lab):
    lab.run(lab.experiment({}))
    (before,) = lab.summary()
    open_life = lab.lives(lab.experiment({"factor": 2.0}))[0]
    lab.store.add_run(open_life.run_file("now"))
    needed = {open_life.key(stage) for _, stage in open_life.steps()}
    paths = removable(lab.store)
    assert paths
    assert not {path.name.partition(".")[0] for path in paths} & needed
    for path in paths:
        path.unlink()
    lab.run(lab.experiment({"factor": 2.0}))
    assert not any(record.repeat for record in lab.store.records()), "what it rests on had been left"
    (after,) = (row for row in lab.summary() if row.experiment == before.experiment)
    assert (after.tec_wh, after.iec_wh, after.acc_pct, after.n_seeds) == (
        before.tec_wh,
        before.iec_wh,
        before.acc_pct,
        1,
    )


# --- what a stage rests on is checked --------------------------------------------------------------------------------


def _network_path(lab: Lab, life: Life):
    return lab.store.outputs.path(life.key(life.plan.network))


def test_another_seeds_network_under_the_same_name_is_not_taken(lab):
    lab.run(lab.experiment({}), lab.experiment({}, seed=1))
    first, second = lab.lives(lab.experiment({}), lab.experiment({}, seed=1))
    base = [life.plan.steps[0][1] for life in (first, second)]
    shutil.copy(lab.store.outputs.path(second.key(base[1])), lab.store.outputs.path(first.key(base[0])))
    said = lab.run(lab.experiment({"factor": 2.0}))
    assert any("is not what any record of its stage handed on" in line for line in said)
    assert any("is lost: it is worked again" in line for line in said)
    by_seed = {row.seed: row.acc_pct for row in lab.rows() if row.stage == "use"}
    used = [record for record in lab.store.records() if record.fn.endswith(":use") and record.params["factor"] == 2.0]
    assert used[0].values["acc_pct"] == by_seed[0]


def test_flipped_bits_are_not_taken(lab):
    lab.run(lab.experiment({}))
    (life,) = lab.lives(lab.experiment({}))
    path = lab.store.outputs.path(life.key(life.plan.steps[0][1]))
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    said = lab.run(lab.experiment({"factor": 2.0}))
    assert any("is lost: it is worked again" in line for line in said)


def test_a_row_whose_chain_mixes_copies_says_so(lab, monkeypatch):
    lab.run(lab.experiment({}))
    shutil.rmtree(lab.store.artifacts)

    def other(bench, params, trained):
        return dataclasses.replace(
            two_steps.Output(values={"seen": 3.0}), details={"genotype": [["conv", 1], ["skip", 2]], "x": 1}
        )

    monkeypatch.setattr(two_steps, "look", other)
    lab.run(lab.experiment({"factor": 2.0}))
    notes = {row.settings: row.notes for row in lab.summary()}
    assert notes["factor=2.0"] == "use rests on a second copy of look, not on the one of its record"
    assert [line for name, line in notes.items() if name != "factor=2.0"] == [""]
    assert any("second copy of look" in finding.what for finding in check(lab.store))


# --- a stranger's folder ----------------------------------------------------------------------------------------------


def test_a_run_file_that_names_code_is_refused_and_nothing_is_imported(lab, tmp_path):
    lab.run(lab.experiment())
    (path,) = lab.store.run_paths()
    words = json.loads(path.read_text())
    words["config"] = {"method": {"_target_": "os.system", "name": f"touch {tmp_path}/ran"}}
    path.write_text(json.dumps(words))
    assert lab.book().unreadable
    assert any("is no run file" in finding.what for finding in check(lab.store) if finding.fault)
    assert not (tmp_path / "ran").exists()


def test_a_stages_name_in_a_file_chooses_no_code(lab):
    lab.run(lab.experiment())
    (path,) = lab.store.run_paths()
    words = json.loads(path.read_text())
    words["stages"][0]["fn"] = "os:system"
    path.write_text(json.dumps(words))
    said = lab.run(lab.experiment())
    assert any("train" in line and "recorded" in line for line in said), "the plan comes from the code alone"


@pytest.mark.parametrize(
    ("builder", "kwargs"),
    [
        ("os:system", {"command": "touch {ran}"}),
        ("benchmark.vision.builders:build", {"builder": "os:system", "kwargs": {"command": "touch {ran}"}}),
        ("subprocess:run", {"args": ["touch", "{ran}"]}),
    ],
)
def test_a_builder_in_an_artifact_runs_no_code_even_if_its_record_vouches_for_it(lab, tmp_path, builder, kwargs):
    """The whole folder is a stranger's: digests fit, for whoever forges an artifact forges its record too."""
    lab.run(lab.experiment({}))
    (life,) = lab.lives(lab.experiment({}))
    key = life.key(life.plan.steps[0][1])
    record = lab.store.record(lab.device.machine, key)
    output, _ = lab.store.outputs.load(key, [record.artifact])
    words = json.loads(json.dumps(kwargs).replace("{ran}", str(tmp_path / "ran")))
    forged = dataclasses.replace(output, network=dataclasses.replace(output.network, builder=builder, kwargs=words))
    stored = lab.store.outputs.save(key, forged)
    record_path = lab.store.results / "records" / lab.device.machine / f"{key}.json"
    record_path.unlink()
    lab.store.add(record.model_copy(update={"artifact": stored.sha256}))
    with pytest.raises(StageError, match=r"builder .* may not run"):
        lab.run(lab.experiment({"factor": 2.0}))
    assert not (tmp_path / "ran").exists()


# --- rows that are not the same look different; unlike tasks are not ranked -------------------------------------------


def test_every_value_in_which_rows_differ_shows_and_unlike_tasks_are_no_rivals(lab):
    scale = {"name": "test", "train_images": 64, "test_images": 32}
    few = {"name": "synthetic", "classes": 5}
    lab.run(
        lab.experiment(),
        lab.experiment(scale={**scale, "train_images": 48}),
        lab.experiment(data=few),
        lab.experiment(data=few, scale={**scale, "train_images": 48}),
    )
    found = lab.summary()
    assert len({(row.classes, row.train_images) for row in found}) == 4
    assert {row.rank_1b for row in found} == {"1"}, "none of them is another's rival"


def test_recipes_are_settings_and_their_rows_are_rivals(lab):
    recipe = {"name": "t", "epochs": 1, "batch_size": 32, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    lab.run(lab.experiment(), lab.experiment(recipe=recipe))
    found = lab.summary()
    assert sorted(row.settings for row in found) == ["recipe.epochs=1", "recipe.epochs=2"]
    assert {row.rank_1b for row in found} & {"1-2", "2", "1"} == {row.rank_1b for row in found}
    assert len({row.rank_1b for row in found} - {"1"}) >= 1


# --- refusals stop no other -------------------------------------------------------------------------------------------


def test_a_life_that_belongs_elsewhere_stops_no_other(lab):
    elsewhere = lab.experiment(seed=1)
    elsewhere = elsewhere.model_copy(update={"hardware": elsewhere.hardware.model_copy(update={"train": "p100"})})
    with pytest.raises(StageError, match="belongs to p100"):
        lab.run(elsewhere, lab.experiment())
    assert [row.n_seeds for row in lab.summary() if row.train_machine != "p100"] == [1]


def test_measurements_are_taken_when_enough_wait_not_all_at_the_end(lab, monkeypatch):
    monkeypatch.setattr("benchmark.run.schedule.GROUP", 2)
    wide = [{"name": f"w{k}", "builder": "tests.tiny:tiny", "kwargs": {"width": 8 + 8 * k}} for k in range(3)]
    broken = {"name": "broken", "builder": "tests.tiny:tiny", "kwargs": {"width": "no"}}
    with pytest.raises(StageError, match=r"train .* failed"):
        lab.run(*(lab.experiment(model=model) for model in (*wide, broken)))
    measured = sorted(record.created for record in lab.store.records() if record.group)
    trained = {
        record.params["task"]["model"]["name"]: record.created
        for record in lab.store.records()
        if ":train" in record.fn
    }
    assert measured[0] < trained["w2"], "the first two were measured before the third was trained"
    assert {row.model: row.n_seeds for row in lab.summary()} == {"w0": 1, "w1": 1, "w2": 1, "broken": 0}


# --- typed rows ---------------------------------------------------------------------------------------------------


def test_stages_that_are_shared_say_so_and_a_sum_over_first_mentions_counts_once(lab):
    lab.run(lab.experiment({}), lab.experiment({"factor": 2.0}))
    found = lab.rows()
    train = [row for row in found if row.stage == "train"]
    assert [row.shared_by for row in train] == [2, 2]
    assert [row.first_mention for row in train] == [True, False]
    once = math.fsum(row.energy_wh for row in found if row.first_mention and row.kind != "IEC")
    records = math.fsum(record.joules for record in lab.store.records() if record.group is None) / 3600
    assert once == pytest.approx(records)
    (measured,) = {row.measured_engine for row in found if row.kind == "IEC"}
    assert measured in {row.key for row in found if row.kind == "deploy"}
    assert {row.settings for row in found} == {"factor=1.0", "factor=2.0"} or {row.settings for row in found} == {
        "",
        "factor=2.0",
    }


def test_the_columns_are_documented_from_the_rows():
    from pathlib import Path

    text = document([("stages.csv", rows.StageRow), ("summary.csv", SummaryRow)])
    assert Path("docs/columns.md").read_text() == text, "python -m benchmark.report.document > docs/columns.md"
    for kind in (rows.StageRow, SummaryRow):
        assert all(f"| `{name}` |" in text for name in names(kind))
        assert all(field.metadata["meaning"] for field in dataclasses.fields(kind))


def _row(**values) -> rows.StageRow:
    plain = {field.name: "" if field.type == "str" else math.nan for field in dataclasses.fields(rows.StageRow)}
    return rows.StageRow(**{**plain, "kind": "TEC", "grade": "A", "energy_wh": 1.0, **values})


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([_row(energy_wh=100.0), _row(energy_wh=0.001, grade="D")], "A"),
        ([_row(energy_wh=100.0), _row(energy_wh=50.0, grade="D")], "D"),
        ([_row(energy_wh=100.0), _row(energy_wh=math.nan, grade="X")], "X"),
        ([_row(energy_wh=100.0), _row(energy_wh=1.0, grade="D"), _row(kind="deploy", grade="X")], "A"),
        ([_row(energy_wh=100.0), _row(kind="IEC", energy_wh=math.nan, grade="C")], "C"),
    ],
)
def test_a_row_is_graded_by_the_stages_that_hold_its_energy(stages, expected):
    assert grade(stages) == expected
