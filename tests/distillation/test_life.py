"""Whole life cycles, teacher first, of every method on a few images; and whose energy is the teacher's."""

from __future__ import annotations

import math

import pytest

from benchmark.energy import find_device
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report import rows
from benchmark.report.checks import check
from benchmark.report.summary import summarise
from tests.distillation.methods import mostly_slow
from tests.distillation.small import GLANCE, NAMES, experiment
from tests.harness.helpers import lives_of, tiny_experiment, work_all
from tests.pruning import presets

WITH_AN_INITIAL_STAGE = ("ab", "ft", "fsp")
QUICK = ("kd", "ft", "crd")
FEW = {"kind": "methods.distillation.crd:CRD", "settings": {"negatives": 16}}
"""Of 40 images; 16,384 would be drawn with replacement."""


class Lab:
    """A store, a device, and the records of what was run."""

    def __init__(self, root) -> None:
        self.root, self.store, self.device = root, Store(root / "results", root / "artifacts"), find_device("cpu")

    def run(self, *experiments):
        found = [life for each in experiments for life in lives_of(each, self.device, self.store)]
        work_all(self.root, self.device, found)
        return [[self.store.record(life.machine(p), life.key(stage)) for p, stage in life.steps()] for life in found]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("name", mostly_slow(NAMES, QUICK))
def test_every_method_runs_from_its_teacher_to_inference(lab, name):
    few = {"term": FEW} if name in ("crd", "crd_kd") else {}
    (records,) = lab.run(experiment(lab.root, name, **few))
    first = ["initial"] if name in WITH_AN_INITIAL_STAGE else []
    assert [record.fn.rpartition(":")[2] for record in records] == ["train", *first, "distil", "build_engine"]
    assert all(record.joules > 0 for record in records)
    teacher, *_, distilled, deployed = records
    assert teacher.values["epochs"] == distilled.values["epochs"] == 2
    assert deployed.values["acc_pct"] == distilled.values["acc_pct"]
    assert distilled.values["teacher_acc_pct"] == teacher.values["acc_pct"]
    assert math.isfinite(distilled.values["loss"])
    assert [finding.what for finding in check(lab.store) if finding.fault and "commit" not in finding.what] == []


@pytest.mark.slow
def test_a_distilled_network_is_pruned(lab):
    distilled = experiment(lab.root, "kd")
    pruned = presets.words("l1", start=distilled.method)
    (records,) = lab.run(distilled.model_copy(update={"method": pruned}))
    (alone,) = lab.run(distilled)
    assert [record.fn.rpartition(":")[2] for record in records] == [
        "train", "distil", "mask", "finetune", "shrink", "build_engine",
    ]  # fmt: skip  # a line reads best
    assert records[:2] == alone[:2], "worked once for both"
    assert records[2].values["acc_before_pct"] == alone[1].values["acc_pct"]
    assert records[4].values["params"] < alone[1].values["params"]


def test_a_teachers_energy_is_attributed_to_each_and_spent_once(tmp_path):
    lab = Lab(tmp_path)
    alone = tiny_experiment(tmp_path, GLANCE)
    one, other = experiment(tmp_path, "kd"), experiment(tmp_path, "ft")
    task = one.task
    alone = alone.model_copy(update={"task": task.model_copy(update={
        "model": task.teacher, "teacher": None, "teacher_recipe": None,
    })})  # fmt: skip  # a line reads best
    (kd, ft, baseline) = lab.run(one, other, alone)
    teacher = kd[0].joules / 3600
    assert kd[0] == ft[0] == baseline[0]
    book = Book.read(lab.store)
    stages = rows.stage_rows(book)
    found = {row.method: row for row in summarise(book, stages)}
    for name, records in (("distillation/kd", kd), ("distillation/ft", ft), ("baseline", baseline)):
        row = found[name]
        made = [record.joules / 3600 for record in records[:-1]]
        assert row.base_wh == pytest.approx(teacher)
        assert row.tec_wh == pytest.approx(math.fsum(made))
        assert row.retrain_wh == pytest.approx(math.fsum(made[1:]))
        assert row.teacher == ("" if name == "baseline" else "repdistiller/resnet8")
    shared = [row for row in stages if row.stage == "train"]
    assert [row.shared_by for row in shared] == [3, 3, 3]
    assert sorted(row.first_mention for row in shared) == [False, False, True]
    once = math.fsum(row.energy_wh for row in stages if row.first_mention and row.kind == "TEC")
    assert once == pytest.approx(
        math.fsum(record.joules for record in {r.key: r for r in kd[:-1] + ft[:-1]}.values()) / 3600
    )
