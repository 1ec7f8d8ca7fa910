"""Identity: what is stored is what was run. Changed plans, lost and foreign artifacts, strangers' folders, rows alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil

import pytest
from rich.console import Console

from benchmark.energy import find_device
from benchmark.errors import UserError
from benchmark.plan.deployment import Inference
from benchmark.plan.life import Life
from benchmark.records.book import Book
from benchmark.records.files import StoreError
from benchmark.records.record import digest, read_record
from benchmark.records.store import Store
from benchmark.report import rows
from benchmark.report.checks import check
from benchmark.report.columns import names
from benchmark.report.document import KINDS, document
from benchmark.report.printed import show
from benchmark.report.sheets import sheets
from benchmark.report.summary import RIVALS, SummaryRow, grade, ranked, summarise
from benchmark.run.forecast import table
from benchmark.run.free import removable
from benchmark.run.schedule import refusals
from benchmark.run.worker import StageError
from methods.baseline import Training
from tests.harness import two_steps
from tests.harness.helpers import CPU, lives_of, tiny_experiment, work_all


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


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """The folder of one life of two steps, worked once for those who only damage it."""
    two_steps.LOOKED.clear()
    made = Lab(tmp_path_factory.mktemp("worked"))
    made.run(made.experiment({}))
    return made.root


@pytest.fixture
def copy_of_it(worked, tmp_path) -> Lab:
    """A copy of that folder, to be damaged."""
    shutil.copytree(worked, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "artifacts" / "used_by")
    own = Lab(tmp_path)
    own.store.outputs.register(own.store.results)
    two_steps.LOOKED.clear()
    return own


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


class Cooler(Inference):
    """The protocol with one field more."""

    cool_down_s: float = 0.0


def test_a_new_field_with_a_default_changes_no_row(lab, monkeypatch):
    """Neither of the protocol nor of a method: keys leave defaults out, and so must all that finds records by them."""
    lab.run(lab.experiment({}))
    experiment = lab.experiment({"factor": 1.0})  # a default, written out
    cooler = Cooler(**experiment.inference.model_dump())
    said = lab.run(experiment.model_copy(update={"inference": cooler}))
    assert all(line.endswith("recorded") for line in said)
    (row,) = lab.summary()
    assert row.n_seeds == 1
    assert row.settings == ""


def test_two_names_of_one_plan_are_two_experiments(lab):
    lab.run(lab.experiment({}), lab.experiment({"name": "other"}))
    assert sorted((row.method, row.n_seeds) for row in lab.summary()) == [("other", 1), ("two_steps", 1)]


def test_plans_that_differ_in_nothing_that_has_a_name_are_told_apart(lab, monkeypatch):
    lab.run(lab.experiment({}))
    monkeypatch.setattr(two_steps.Using.model_fields["factor"], "default", 3.0)
    two_steps.Using.model_rebuild(force=True)
    try:
        lab.run(lab.experiment({}))
    finally:
        monkeypatch.undo()
        two_steps.Using.model_rebuild(force=True)
    said = [row.settings for row in lab.summary()]
    assert len(set(said)) == 2
    assert all(text.startswith("plan=") for text in said)


@pytest.mark.parametrize(
    "changed",
    [
        {"engine_version": "0.1"}, {"measurement": "of another protocol"}, {"signature": "another"}, {"machine": "there"},
    ],
)  # fmt: skip  # a case a line
def test_a_measurement_joins_a_run_by_all_that_was_measured(lab, changed):
    lab.run(lab.experiment())
    (path,) = (path for path in lab.store.record_paths() if read_record(path).group)
    record = read_record(path)
    path.unlink()
    details = {**record.details, **{name: value for name, value in changed.items() if name in record.details}}
    params = {**record.params, **{name: value for name, value in changed.items() if name in record.params}}
    machine = changed.get("machine", record.machine)
    lab.store.add(record.model_copy(update={"details": details, "params": params, "machine": machine}))
    (row,) = lab.summary()
    assert row.missing == "seed 0: inference"


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
    assert not {path.name[:20] for path in paths} & needed
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


def test_what_another_results_folder_needs_is_not_freed(lab, tmp_path):
    lab.run(lab.experiment({}))
    other = Store(tmp_path / "elsewhere", lab.store.artifacts)
    other.check_writable()
    assert len(removable(other)) > 0
    other.add_run(lab.lives(lab.experiment({"factor": 2.0}))[0].run_file("now"))
    needed = {stage.key for run in other.runs() for stage in run.stages}
    assert not {path.name[:20] for path in removable(lab.store)} & needed


def test_nothing_is_freed_while_a_run_cannot_be_read(lab):
    lab.run(lab.experiment({}))
    lab.store.run_paths()[0].write_text("{}")
    with pytest.raises(StoreError, match="mend or remove it first, then free"):
        removable(lab.store)


# --- what a stage rests on is checked --------------------------------------------------------------------------------


def _artifact(lab: Lab, life: Life):
    """The file of a life's base network."""
    (path,) = lab.store.outputs.copies(life.key(life.plan.steps[0][1]))
    return path


def test_another_seeds_network_under_the_same_name_is_not_taken(lab):
    lab.run(lab.experiment({}), lab.experiment({}, seed=1))
    first, second = lab.lives(lab.experiment({}), lab.experiment({}, seed=1))
    shutil.copy(_artifact(lab, second), _artifact(lab, first))
    said = lab.run(lab.experiment({"factor": 2.0}))
    assert any("is not what any record of its stage handed on" in line for line in said)
    assert any("is lost: the stage runs again" in line for line in said)
    by_seed = {row.seed: row.acc_pct for row in lab.rows() if row.stage == "use"}
    used = [record for record in lab.store.records() if record.fn.endswith(":use") and record.params["factor"] == 2.0]
    assert used[0].values["acc_pct"] == by_seed[0]


def test_a_file_of_another_name_is_not_taken_and_said(lab):
    lab.run(lab.experiment({}))
    (life,) = lab.lives(lab.experiment({}))
    path = _artifact(lab, life)
    path.rename(path.with_name(f"{path.name[:20]}-{'0' * 12}.safetensors"))
    said = lab.run(lab.experiment({"factor": 2.0}))
    assert any("is not taken: no record of its stage here vouches for it" in line for line in said)


def test_flipped_bits_are_not_taken(lab):
    lab.run(lab.experiment({}))
    (life,) = lab.lives(lab.experiment({}))
    path = _artifact(lab, life)
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    said = lab.run(lab.experiment({"factor": 2.0}))
    assert any("is lost: the stage runs again" in line for line in said)


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


def _edit(lab: Lab, path, *way, value) -> None:
    """Change one value of a record or run, and seal it again, as a stranger would."""
    words = json.loads(path.read_text())
    inner = words
    for name in way[:-1]:
        inner = inner[name]
    inner[way[-1]] = value
    if "digest" in words:
        words["digest"] = digest(words)
    path.write_text(json.dumps(words))


@pytest.mark.parametrize(
    ("kind", "way", "value"),
    [
        ("train", ("values", "acc_pct"), 101.0),
        ("train", ("joules",), -1.0),
        ("train", ("grade",), "Z"),
        ("train", ("provenance", "versions"), []),
        ("train", ("provenance", "power_limit_w"), "much"),
        ("build_engine", ("details", "signature"), None),
        ("build_engine", ("values", "acc_pct"), -3),
        ("inference", ("values", "iec_joules"), -1.0),
        ("inference", ("details", "spent"), {"x": 1}),
        ("run", ("stages", 0, "kind"), "IEC"),
        ("run", ("stages",), []),
        ("run", ("words", "method"), "[/x]"),
        ("run", ("seed",), "one"),
    ],
)
def test_a_strangers_folder_crashes_no_command(copy_of_it, kind, way, value, capsys):
    """Each ends in a table, a finding or one clear error."""
    lab = copy_of_it
    if kind == "run":
        (path,) = lab.store.run_paths()
    else:
        (path,) = (path for path in lab.store.record_paths() if read_record(path).fn.endswith(kind))
    _edit(lab, path, *way, value=value)
    (lab.store.results / "devices" / "x").mkdir(parents=True)
    (lab.store.results / "devices" / "x" / "y.json").write_text("{}")
    check(lab.store)
    rows_now = lab.summary()
    if rows_now:
        show(sheets(rows_now), [], [], Console(width=200))
    lives = lab.lives(lab.experiment({}))
    for work in (lambda: list(table(lab.store, lives)), lambda: lab.run(lab.experiment({}))):
        with contextlib.suppress(UserError):
            work()
    assert check(lab.store) is not None


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


@pytest.mark.parametrize("name", RIVALS)
def test_rows_that_differ_in_one_of_these_values_have_no_rank_among_each_other(lab, name):
    lab.run(lab.experiment())
    (row,) = lab.summary()
    value = getattr(row, name)
    other = dataclasses.replace(row, **{name: f"{value}x" if isinstance(value, str) else 7})
    assert [each.rank_1b for each in ranked([row, other])] == ["1", "1"]
    assert [each.rank_1b for each in ranked([row, row])] == ["1-2", "1-2"]


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
    monkeypatch.setattr("benchmark.run.agenda.GROUP", 2)
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


def test_an_engine_that_cannot_be_loaded_keeps_no_other_from_being_measured(lab, monkeypatch):
    from benchmark.deploy import measure

    original = measure.subject

    def fail_for_the_wide(bench, params, built):
        if built.engine.tensors["0.weight"].shape[0] == 16:
            raise RuntimeError("no such kernel")
        return original(bench, params, built)

    monkeypatch.setattr(measure, "subject", fail_for_the_wide)
    wide = {"name": "wide", "builder": "tests.tiny:tiny", "kwargs": {"width": 16}}
    with pytest.raises(StageError, match="cannot be loaded: RuntimeError: no such kernel"):
        lab.run(lab.experiment(), lab.experiment(model=wide))
    assert {row.model: row.n_seeds for row in lab.summary()} == {"tiny": 1, "wide": 0}


def test_a_damaged_checkpoint_stops_no_other_life(lab):
    (life,) = lab.lives(lab.experiment())
    lab.store.check_writable()
    lab.store.outputs.checkpoint(life.key(life.plan.network), lab.device.uuid).write_bytes(b"rubbish")
    with pytest.raises(StageError, match=r"is damaged .* delete it to start the stage again"):
        lab.run(lab.experiment(), lab.experiment(seed=1))
    assert [row.n_seeds for row in lab.summary()] == [1]


def test_a_check_that_crashes_refuses_its_own_life_alone(lab, monkeypatch):
    def crash(self, task):
        raise RuntimeError("meta tensors cannot do this")

    monkeypatch.setattr(two_steps.TwoSteps, "check", crash)
    found = refusals(lab.lives(lab.experiment({}), lab.experiment()), CPU, "cpu")
    assert list(found) == [0]
    assert "its check failed: RuntimeError: meta tensors cannot do this" in found[0]


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

    text = document(KINDS)
    assert Path("docs/columns.md").read_text() == text, "python -m benchmark.report.document > docs/columns.md"
    for _, kind in KINDS:
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
