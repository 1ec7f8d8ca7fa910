"""What a newcomer asks before anything runs: sweeps over several methods, and what all of it will take."""

from __future__ import annotations

import re

import pytest

from benchmark.__main__ import main
from benchmark.energy import find_device
from benchmark.plan.folders import ConfigError
from benchmark.plan.study import sweep
from benchmark.records.artifacts import Artifacts
from benchmark.records.files import Unreadable
from benchmark.run.costs import of_cpu
from benchmark.run.forecast import forecaster, table
from benchmark.run.workbench import MEASURING
from tests.harness.helpers import lives_of, tiny_experiment
from tests.harness.test_runner import Lab, lab  # noqa: F401  # a fixture


def test_a_setting_goes_to_the_methods_that_have_it_and_the_others_appear_once():
    assert sweep(["method=baseline,pruning/l1,pruning/fpgm", "method.sparsity=0.3,0.5", "seed=1"]) == [
        ["method=baseline", "seed=1"],
        ["method=pruning/l1", "method.sparsity=0.3", "seed=1"],
        ["method=pruning/l1", "method.sparsity=0.5", "seed=1"],
        ["method=pruning/fpgm", "method.sparsity=0.3", "seed=1"],
        ["method=pruning/fpgm", "method.sparsity=0.5", "seed=1"],
    ]


def test_nested_settings_and_those_of_the_start_stay():
    words = ["method=pruning/l1,distillation/ft", "method.term.settings.rate=0.25", "pair=vgg13__vgg8"]
    assert sweep(words) == [
        ["method=pruning/l1", "pair=vgg13__vgg8"],
        ["method=distillation/ft", "method.term.settings.rate=0.25", "pair=vgg13__vgg8"],
    ]
    start = ["method=pruning/l1,pruning/l2", "start=distillation/kd", "method.start.weights.ce=0.3"]
    assert all("method.start.weights.ce=0.3" in job for job in sweep(start))


def test_a_setting_that_no_method_has_is_an_error_with_near_names():
    with pytest.raises(ConfigError, match=r"none of the swept methods has it; did you mean method\.sparsity"):
        sweep(["method=baseline,pruning/l1", "method.sparsty=0.3"])


def paths(root) -> list[str]:
    return [f"paths.{name}={root / name}" for name in ("data", "artifacts", "results")]


def test_a_sweep_is_planned_with_its_sums(tmp_path, capsys):
    words = ["method=baseline,pruning/l1", "method.sparsity=0.3,0.5", "model=repdistiller/resnet8", "scale=smoke"]
    assert main(["plan", "-m", *words, "data=synthetic", "hardware=cpu", *paths(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.count(" seed 0: ") == 3
    assert re.search(r"pruning\.l1-\S+ \(sparsity=0\.3\) seed 0: ", told), "their digests tell nobody which is which"
    assert re.search(r"baseline-\S+ seed 0: ", told)
    assert "to do: 12 stage(s)" in told, "the base is one for all: 2 + 2 x 4 stages, and two shapes to measure"
    assert "W.h by the model of a CPU" in told
    assert not (tmp_path / "results").exists(), "a plan runs nothing"


def test_several_mui_are_asked_of_one_report_and_sweep_nothing():
    assert sweep(["method=baseline,pruning/l1", "mui=1e7,5e8"]) == [
        ["method=baseline", "mui=[1e7,5e8]"],
        ["method=pruning/l1", "mui=[1e7,5e8]"],
    ]


def test_a_measured_shape_is_not_left_to_do(tmp_path, capsys, monkeypatch):
    words = ["plan", "-m", "method=baseline,pruning/l1", "model=repdistiller/resnet8", "scale=smoke", "data=synthetic"]
    words += ["hardware=cpu", *paths(tmp_path)]
    assert main(words) == 0
    assert re.search(r"^  inference +2 stage\(s\)", capsys.readouterr().out, re.M)

    def damaged(life, store):
        raise Unreadable("a damaged record")

    monkeypatch.setattr("benchmark.run.state.measured", damaged)
    assert main(words) == 0, "one damaged record ends no plan"
    assert re.search(r"^  inference +2 stage\(s\)", capsys.readouterr().out, re.M)
    monkeypatch.setattr("benchmark.run.state.measured", lambda life, store: life.plan.network.fn.endswith(":train"))
    assert main(words) == 0
    assert re.search(r"^  inference +1 stage\(s\)", capsys.readouterr().out, re.M)


def test_a_study_is_planned_by_the_same_word(tmp_path, capsys):
    words = ["experiment=smoke", "data=synthetic", "hardware=cpu", *paths(tmp_path)]
    assert main(["plan", *words]) == 0
    planned = capsys.readouterr().out
    assert main(["study", *words, "--dry-run"]) == 0
    assert capsys.readouterr().out == planned
    assert "to do: " in planned


def test_a_stage_with_a_checkpoint_is_partly_done(lab):  # noqa: F811
    (life,) = lives_of(tiny_experiment(lab.root), find_device("cpu"), lab.store)
    key = life.key(life.steps()[0][1])
    assert not any("partly done" in line for line in table(lab.store, [life]))
    path = Artifacts(lab.store.artifacts).checkpoint(key, "a board")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    (line,) = (line for line in table(lab.store, [life]) if "partly done" in line)
    assert key in line


def test_a_stage_that_was_ended_before_its_first_checkpoint_is_begun(lab):  # noqa: F811
    (life,) = lives_of(tiny_experiment(lab.root), find_device("cpu"), lab.store)
    phase, stage = life.steps()[0]
    assert not any("begun" in line for line in table(lab.store, [life]))
    lab.store.write_attempt(life.machine(phase), life.key(stage), {"id": "a"})
    (line,) = (line for line in table(lab.store, [life]) if "begun" in line)
    assert life.key(stage) in line
    assert "booked as repeated" in line
    lab.store.write_attempt(life.machine(phase), MEASURING, {"id": "b"})
    (line,) = (line for line in table(lab.store, [life]) if "a measurement was begun" in line)
    assert line.startswith("  infer ")


@pytest.mark.slow
def test_what_is_refused_is_said_before_the_others_are_worked(tmp_path, capsys, monkeypatch):
    """And not after hours of base training."""
    said_before = []
    monkeypatch.setattr("benchmark.studying._work", lambda *_: said_before.append(capsys.readouterr().err) or "")
    monkeypatch.setattr("benchmark.studying._end", lambda planned, failures: len(failures))
    net = [
        "model.name=opaque",
        "model.builder=tests.pruning.nets:opaque",
        "data=synthetic",
        "scale=smoke",
        "hardware=cpu",
    ]
    assert main(["run", "-m", "method=baseline,pruning/l1", *net, *paths(tmp_path)]) == 1
    assert "refused: pruning/l1" in said_before[0]
    assert "nothing is known of Softmax" in said_before[0]


def test_what_nobody_knows_is_counted_beside_what_is_known(tmp_path, capsys):
    net = ["model.name=tiny", "model.builder=tests.tiny:tiny", "data=synthetic", "scale=smoke", "hardware=cpu"]
    assert main(["plan", "-m", "method=baseline,pruning/l1", *net, *paths(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"baseline-tiny\S+ seed 0: 2 stage\(s\), about .*, 1 of them unknown", said)
    assert re.search(r"^  inference +2 stage\(s\), about ", said, re.M)


@pytest.mark.parametrize(("scale", "warned"), [("full", True), ("smoke", False)])
def test_days_on_a_cpu_are_said_before_the_work(scale, warned, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmark.studying._work", lambda *_: "")
    monkeypatch.setattr("benchmark.studying._refuse", lambda *_: [])
    monkeypatch.setattr("benchmark.studying._end", lambda *_: 0)
    words = ["method=baseline", f"scale={scale}", "data=synthetic", "hardware=cpu", *paths(tmp_path)]
    assert main(["run", *words]) == 0
    assert ("scale=full on this CPU takes about" in capsys.readouterr().err) is warned


def test_of_a_network_that_the_model_does_not_know_days_are_feared(tmp_path, capsys, monkeypatch):
    for name, result in (("_work", ""), ("_refuse", []), ("_end", 0)):
        monkeypatch.setattr(f"benchmark.studying.{name}", lambda *_, result=result: result)
    net = ["model.name=tiny", "model.builder=tests.tiny:tiny", "recipe=check", "data=synthetic", "hardware=cpu"]
    assert main(["run", *net, "scale=full", *paths(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "scale=full on a CPU may take days: nothing here tells how long 1 of 2 stages take" in said
    assert main(["run", *net, "scale=smoke", *paths(tmp_path)]) == 0
    assert "may take days" not in capsys.readouterr().err


def test_a_network_of_ones_own_is_foretold_by_its_records_at_another_scale(lab):  # noqa: F811
    small = tiny_experiment(lab.root, scale={"name": "test", "train_images": 96, "test_images": 32})
    large = tiny_experiment(lab.root, scale={"name": "test", "train_images": 9600, "test_images": 32})
    (life,) = lives_of(large, lab.device, lab.store)
    phase, train = life.steps()[0]
    model = of_cpu(1)
    assert forecaster(lab.store, [life], model).of(train, life.machine(phase)).by == "", "the zoo alone"
    lab.run(small)
    told = forecaster(lab.store, [life], model).of(train, life.machine(phase))
    (record,) = [record for record in lab.store.records() if record.fn == "methods.training:train"]
    assert told.by == "scaled"
    (mine,) = lives_of(small, lab.device, lab.store)
    done, more = (sum(each.images for each in own.steps()[0][1].effort().passes) for own in (mine, life))
    assert more > 50 * done
    assert told.seconds == pytest.approx(record.seconds * more / done, rel=0.3), "its tests weigh a third of a pass"
    assert told.joules == pytest.approx(told.seconds * record.joules / record.seconds)
    lines = list(table(lab.store, [life], model))
    assert any("to do, by other scales " in line for line in lines)
    assert any("by records of the same network at another scale" in line for line in lines)


def test_help_names_the_settings_of_a_method(capsys):
    assert main(["run", "--help", "method=pruning/l1"]) == 0
    told = capsys.readouterr().out
    assert "method.sparsity=0.5" in told
    assert "method.start=null" in told
    assert main(["run", "--help", "method=pruning/l3"]) == 1
    assert "did you mean pruning/l" in capsys.readouterr().err


def test_a_warning_that_many_records_share_is_one_line(capsys, monkeypatch, tmp_path):
    from benchmark.report.checks import Finding

    found = [Finding(False, f"records/{number}", "the same") for number in range(5)] + [
        Finding(True, "a", "b"),
        Finding(True, "c", "b"),
    ]
    monkeypatch.setattr("benchmark.report.checks.check", lambda store: found)
    monkeypatch.setattr("benchmark.records.store.Store.record_paths", lambda self: [tmp_path])
    (tmp_path / "results").mkdir()
    assert main(["check", *paths(tmp_path)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == ["FAULT: a: b", "FAULT: c: b", "warning: records/0 and 4 more: the same"]
    assert told[3].endswith("2 faults, 5 warnings")
