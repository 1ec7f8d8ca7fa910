"""What the harness makes of a plan: bound stages, calibration, engines on fakes, run files, and plans that change."""

from __future__ import annotations

import importlib
import json
import re
import sys

import pytest

from benchmark.deploy import engines
from benchmark.plan import config
from benchmark.plan.config import ConfigError
from benchmark.plan.deployment import Here, calibration_stage, choose_engine
from benchmark.plan.life import Life, Place, lives, place_of
from benchmark.plan.stage import Bound, Phase, Plan, Precision, Stage
from benchmark.plan.task import Params
from tests.harness.helpers import CPU, FAKED, HERE, Fake, tiny_experiment


def _life(*words: str, here: Here = FAKED) -> Life:
    parsed, _ = config.parse(config.compose(words), here)
    return lives(parsed, place_of(parsed, here, []))[0]


def test_auto_is_the_preferred_engine_that_is_installed_whatever_the_precision():
    for precision in ("fp32", "fp16", "int8"):
        assert _life(f"deploy_precision={precision}").experiment.engine == "fake"
    assert choose_engine(CPU, "auto").engine == "onnxruntime"
    torch_alone = Here(device_kind="cpu", machine="m", engines=tuple(e for e in CPU.engines if e.name == "torch"))
    assert choose_engine(torch_alone, "auto").engine == "torch"


def test_auto_says_in_a_sentence_what_it_chose_and_why():
    chosen = choose_engine(CPU, "auto")
    assert re.match(r"engine=auto is onnxruntime [\d.]+, the first choice on a CPU", chosen.why)
    assert choose_engine(CPU, "torch") == ("torch", ""), "who names an engine needs no reason"
    passed = choose_engine(Here(device_kind="cpu", machine="m", engines=FAKED.engines), "auto").why
    assert "of those that can run here (fake: fake needs a GPU" in passed


def test_auto_without_an_engine_that_can_run_says_why():
    nothing = Here(device_kind="cpu", machine="m", engines=(Fake(),))
    with pytest.raises(ConfigError, match=r"engine=auto: no engine can run here \(fake: fake needs a GPU\)"):
        _life(here=nothing)


def test_int8_without_scales_gets_a_calibration_of_the_deployed_network():
    life = _life("method=pruning/apoz", "deploy_precision=int8")
    phase, calibration = life.plan.steps[-1]
    assert (phase, calibration.fn) == (Phase.COMPRESS, "benchmark.deploy.calibrate:scales")
    assert calibration.inputs == {"network": life.plan.network}
    assert dict(life.build.inputs) == {"network": life.plan.network, "scales": calibration}
    assert life.phase(calibration) is Phase.COMPRESS
    plain = _life("method=pruning/apoz")
    assert [life.key(stage) for _, stage in plain.plan.steps] == [life.key(stage) for _, stage in life.plan.steps[:-1]]
    assert calibration == calibration_stage(plain.plan.network, plain.task), "whoever asks gets the same stage"
    assert len(life.run_file("").stages) == len(plain.run_file("").stages) + 1


def test_a_plan_that_calibrates_itself_is_left_alone():
    class Own:
        def plan(self, task):
            base = _life().plan.network
            scales = Stage("m:own", Params(), {"network": base})
            return Plan(((Phase.BASE, base), (Phase.COMPRESS, scales)), base, Precision("int8", scales))

    from benchmark.plan.deployment import with_calibration

    task = _life().task
    plan = Own().plan(task)
    assert with_calibration(plan, task) is plan


class Table(Params):
    points: int = 3


def _bound_life(place: Place) -> Life:
    """A life whose search rests on a look-up table that was measured on the training machine."""
    life = _life()
    table = Stage("m:table", Table(), bound=Bound.DEVICE)
    found = Stage("m:search", Params(), {"table": table})
    plan = Plan(((Phase.COMPRESS, table), (Phase.RETRAIN, found)), found, Precision("fp32"))
    build = Stage("m:build", Params(), {"network": found}, bound=Bound.ENGINE)
    return Life(life.experiment, life.task, plan, build, place)


def _keys(train="t", infer="i", version="1"):
    return [key for _, key in _bound_life(Place(train, infer, version)).phase_keys()]


def test_a_table_of_the_training_machine_is_bound_to_it_and_to_no_library():
    keys = _keys()
    other_train, other_infer, other_version = _keys(train="u"), _keys(infer="j"), _keys(version="2")
    assert all(one != other for one, other in zip(keys, other_train, strict=True)), "what rests on the table follows it"
    assert other_infer[:2] == keys[:2]
    assert other_version[:2] == keys[:2]
    assert other_infer[2] != keys[2] != other_version[2]


def test_a_version_is_the_librarys_own():
    assert _life().place.engine_version == "1.2"
    import torch

    assert torch.__version__ == _life("engine=torch").place.engine_version


def test_planning_asks_engines_for_versions_and_imports_none():
    for name in ("benchmark.deploy.engines", "benchmark.deploy.engines.pytorch"):
        assert name in sys.modules
    assert {"onnxruntime", "torch", "torch_graph"} <= {kind.name for kind in engines.kinds()}


def test_a_new_engine_is_a_new_module_and_no_old_one(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Mine:\n    name = 'mine'\n    preference = -1\n\n\nKIND = Mine()\n")
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    assert "mine" in [kind.name for kind in engines.kinds()]
    assert engines.kind_named("mine").preference == -1
    monkeypatch.delitem(sys.modules, "benchmark.deploy.engines.mine")
    importlib.invalidate_caches()


@pytest.mark.parametrize("name", ["build:build_engine", "measure:inference"])
def test_the_stages_of_the_harness_exist(name):
    module, _, function = name.partition(":")
    assert callable(getattr(importlib.import_module(f"benchmark.deploy.{module}"), function))


# --- run files -----------------------------------------------------------------------------------------------------


def test_a_run_file_holds_what_rows_need_and_names_no_code_to_run(tmp_path):
    run = lives(tiny_experiment(tmp_path), HERE)[0].run_file("now")
    words = run.words
    assert (words.method, words.model, words.data, words.classes) == ("baseline", "tiny", "synthetic", 10)
    assert (words.train_images, words.test_images, words.max_epochs) == (64, 32, None)
    assert run.settings["recipe.lr"] == "0.05"
    assert run.settings["inference.windows"] == "3"
    assert [stage.kind for stage in run.stages] == ["TEC", "deploy"]
    assert run.stages[1].inputs == {"network": run.stages[0].key}
    text = json.dumps(run.model_dump(mode="json"))
    assert "_target_" not in text
    assert str(tmp_path) not in text, "whose machine it was is nobody's business"


def test_the_digest_of_a_plan_leaves_the_seed_out_and_nothing_else(tmp_path):
    def digest(**task):
        return lives(tiny_experiment(tmp_path, **task), HERE)[0].digest

    assert digest(seed=7) == digest()
    recipe = {"name": "t", "epochs": 3, "batch_size": 32, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    others = [
        digest(recipe=recipe),
        digest(scale={"name": "test", "train_images": 65, "test_images": 32}),
        digest(data={"name": "synthetic", "classes": 5}),
        lives(tiny_experiment(tmp_path), Place("here", "here", "1"))[0].digest,
        lives(tiny_experiment(tmp_path), Place("there", "here", "0"))[0].digest,
    ]
    assert len({digest(), *others}) == 6
