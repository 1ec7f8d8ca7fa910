"""Words to experiments: every file composes, every typo names its neighbour, nothing impossible gets through."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from benchmark.plan import config, study
from benchmark.plan.config import ConfigError
from benchmark.plan.deployment import EngineError, Here
from benchmark.plan.life import Place, lives, undeployable
from benchmark.plan.quick import compose_all
from benchmark.plan.stage import Phase
from benchmark.plan.task import Recipe
from benchmark.run.schedule import refusals
from tests.harness.helpers import CPU, FAKED, GPU, HERE, Fake


def _parse(*overrides, here=GPU):
    return config.parse(config.compose(overrides), here)[0]


CHOICES = [(group, name) for group in config.groups() if group != "pair" for name in config.names(group)]


@pytest.fixture(scope="module")
def composed():
    """Every file of every group as a composed configuration, and with a pair beside it: composed at once, as a study
    is (that Hydra composes the same, tests/harness/test_study.py holds)."""
    jobs = [[f"{group}={name}"] for group, name in CHOICES]
    jobs += [[word, "pair=resnet14__resnet8"] for (word,) in jobs if word.startswith("method=distillation/")]
    return {tuple(job): config for job, config in zip(jobs, compose_all(jobs), strict=True)}


def _with_a_teacher_where_one_is_needed(composed, word):
    try:
        return config.parse(composed[word,], FAKED)[0]
    except ConfigError as refused:
        if "give pair= or teacher=" not in str(refused):
            raise
    return config.parse(composed[word, "pair=resnet14__resnet8"], FAKED)[0]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_every_file_composes_parses_and_plans(composed, group, name):
    parsed = _with_a_teacher_where_one_is_needed(composed, f"{group}={name}")
    for life in lives(parsed, HERE):
        brings_its_own = "recipe" in parsed.method  # and trains nothing before it has found it
        assert (Phase.BASE in [phase for phase, _ in life.plan.steps]) != brings_its_own
        assert life.steps()[-1][0] is Phase.DEPLOY
    stored = config.experiment(parsed.model_dump(mode="json"))
    assert stored == parsed


@pytest.mark.parametrize(
    ("group", "name"), [choice for choice in CHOICES if choice[0] in ("model", "data", "recipe", "scale", "method")]
)
def test_a_file_is_named_as_what_it_holds(composed, group, name):
    assert composed[f"{group}={name}",][group]["name"] == name


@pytest.mark.slow
def test_every_study_expands_to_experiments_that_parse():
    """Composed at once, as a study is: that this is what Hydra composes, tests/harness/test_study.py holds."""
    from benchmark.plan.study import FOLDER, expand

    files = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")]
    assert files
    for name in files:
        jobs = [job for block in expand(name, ["seed=3"]) for job in block.jobs]
        parsed = [config.parse(each, GPU)[0] for each in compose_all(jobs)]
        assert parsed[-1] == _parse(*jobs[-1])
        assert len({lives(experiment, HERE)[0].name for experiment in parsed}) == len(jobs)
        assert {experiment.task.seed for experiment in parsed} == {3}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("method=basline", r"unknown method 'basline'; did you mean baseline\?"),
        ("model=vgg16", r"unknown model 'vgg16'; did you mean .*nni/vgg16"),
        ("model=nni/vgg61", r"unknown model 'nni/vgg61'; did you mean .*nni/vgg16"),
        ("method=pruning/apozz", r"unknown method 'pruning/apozz'"),
        ("data=cifar1000", r"unknown data 'cifar1000'; did you mean .*cifar100"),
        ("pair=nothing", "unknown pair 'nothing'"),
        ("sede=1", r"unknown name 'sede'.*did you mean seed"),
        ("recipe.epochz=3", r"recipe.epochz.*did you mean recipe.epochs"),
        ("+recipe.lrr=3", r"recipe.lrr: unknown name; did you mean lr\?"),
        ("+method.sparsity=0.5", r"method.sparsity: unknown name"),
        ("hardware.devise=cpu", r"hardware.devise.*did you mean hardware.device"),
        ("seed=abc", "seed: .*valid integer.*'abc'"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("seeds=0", "seeds: .*greater than or equal to 1"),
        ("recipe.lr=0", "recipe.lr: .*greater than 0"),
        ("recipe.milestones=[80,120]", "milestones are fractions"),
        ("train_precision=fp8", "train_precision: .*'tf32'"),
        ("profile=quick", "profile: .*'fast' or 'published'"),
        ("engine=tensorrtt", "unknown engine 'tensorrtt'"),
        ("executor=slurm", "'local' or 'ray'"),
        ("tau=0", "tau: "),
        ("seed", "write seed=value"),
        ("+scale.train_images=60000", "scale.train_images=60000: cifar100 has 50000"),
        ("+scale.test_images=20000", "scale.test_images=20000: cifar100 has 10000"),
    ],
)
def test_a_wrong_word_is_refused_by_name(word, wanted):
    with pytest.raises(ConfigError, match=wanted):
        _parse(word)


def test_pair_excludes_model_and_teacher():
    with pytest.raises(ConfigError, match="pair= sets the teacher and the student, model= sets"):
        config.check_words(["pair=resnet14__resnet8", "model=nni/vgg16"])
    with pytest.raises(ConfigError, match="pair= sets the teacher and the student, teacher= sets"):
        config.check_words(["pair=resnet14__resnet8", "teacher=nni/vgg16"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("deploy_precision=int8", "engine=torch"), "deploy_precision=int8 with engine=torch: torch has no INT8"),
        (("method=quantization/int8", "engine=torch"), "deploy_precision=int8 with engine=torch: torch has no INT8"),
        (
            ("deploy_precision=fp16", "engine=torch"),
            "deploy_precision=fp16 with engine=torch: torch runs fp16 on a GPU",
        ),
        (("deploy_precision=bf16",), "deploy_precision=bf16 with engine=onnxruntime: .*choose engine=torch"),
        (("deploy_precision=tf32",), "deploy_precision=tf32 with engine=onnxruntime: tf32 needs a GPU"),
        (("engine=torch_graph",), "engine=torch_graph: CUDA graphs need a GPU"),
    ],
)
@pytest.mark.slow
def test_what_the_engine_cannot_do_is_refused_with_its_reason_and_stops_no_other(words, why):
    lives_here = [lives(_parse(*each, here=CPU), HERE)[0] for each in ((), words)]
    found = refusals(lives_here, CPU, "cpu")
    assert list(found) == [1]
    assert re.search(why, found[1])
    assert undeployable(lives(_parse(*words, "hardware.infer=far", here=CPU), Place("here", "far", "1"))[0], CPU) == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("method=quantization/int8", "deploy_precision=fp16"),
            "quantization/int8: this method deploys int8: leave out deploy",
        ),
        (("inference.buffers=pycuda",), "inference.buffers=pycuda: engine=onnxruntime runs on torch"),
        (("calibration.images=64",), r"only INT8 is calibrated, and fp32 is deployed: leave calibration.\* out"),
        (("deploy_precision=int8", "calibration.percentile=99"), "percentile=99.0 goes with algorithm=percentile"),
        (("deploy_precision=int8", "calibration.percentile=40"), "calibration.percentile: .*greater than 50"),
        (("max_drop_pct.int8=-1",), "max_drop_pct.int8: .*greater than or equal to 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(words, why):
    with pytest.raises(ConfigError, match=why):
        _parse(*words, here=CPU)


def test_on_a_cpu_training_is_fp32_and_it_says_so():
    parsed, notes = config.parse(config.compose([]), CPU)
    assert parsed.task.train_precision == "fp32"
    assert notes[0] == "train_precision is fp32: tf32 needs a GPU"
    assert notes[1].startswith("engine=auto is onnxruntime")
    assert config.parse(config.compose(["train_precision=fp32", "engine=torch"]), CPU)[1] == []
    assert _parse().task.train_precision == "tf32"


def test_smoke_writes_elsewhere_and_trains_one_epoch():
    smoke = _parse("scale=smoke")
    assert smoke.paths.results.as_posix() == "results/.smoke"
    assert smoke.task.recipe.epochs == 1
    assert _parse("scale=small").paths.results.as_posix() == "results"
    assert _parse("scale=smoke", "paths.results=here").paths.results.as_posix() == "here"
    assert _parse().task.recipe.epochs == 160


def test_names_tell_experiments_apart_but_not_seeds():
    def name(*words):
        experiment = _parse(*words)
        return lives(experiment, Place(experiment.hardware.train or "here", "here", "0"))[0].name

    base = name()
    assert name("seed=4") == base == name("paths.data=elsewhere", "seeds=2")
    others = [name(word) for word in ("scale=small", "recipe.lr=0.2", "train_precision=bf16", "hardware.train=p100")]
    assert len({base, *others}) == 5


def test_seeds_make_that_many_tasks():
    assert [task.seed for task in _parse("seed=5", "seeds=3").tasks()] == [5, 6, 7]


def test_an_empty_study_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "none.yaml").write_text("[]\n")
    (tmp_path / "typo.yaml").write_text("- override: [seed=1]\n")
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="holds no experiment"):
        study.expand("none", [])
    with pytest.raises(ConfigError, match="unknown override; did you mean overrides"):
        study.expand("typo", [])
    with pytest.raises(ConfigError, match="unknown experiment 'nane'; did you mean none"):
        study.expand("nane", [])


def test_words_of_the_command_replace_the_studys(tmp_path, monkeypatch):
    (tmp_path / "two.yaml").write_text("- overrides: [seed=1, scale=small]\n  sweep: {model: [a, b], recipe: [x]}\n")
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    assert [block.jobs for block in study.expand("two", ["seed=9"])] == [
        [["scale=small", "model=a", "recipe=x", "seed=9"], ["scale=small", "model=b", "recipe=x", "seed=9"]],
    ]
    assert study.expand("two", ["model=c"])[0].jobs == [["seed=1", "scale=small", "recipe=x", "model=c"]]


def test_what_two_blocks_ask_for_is_one_job_of_the_first(tmp_path, monkeypatch):
    block = "- overrides: [seed=1]\n  sweep: {model: [%s]}\n"
    (tmp_path / "twice.yaml").write_text(block % "a, b" + block % "b, c")
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    assert [[job[-1] for job in each.jobs] for each in study.expand("twice")] == [["model=a", "model=b"], ["model=c"]]


def test_values_are_frozen():
    recipe = Recipe(name="t", epochs=1, batch_size=1, lr=1, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 2


# --- recipes belong to networks; teachers ---------------------------------------------------------------------------

LEARNER = ("method._target_=tests.harness.two_steps.Learner",)


@pytest.mark.parametrize(
    ("words", "student", "teacher"),
    [
        (["model=nni/vgg16"], "nni160", None),
        (["model=repdistiller/resnet8"], "repdistiller240", None),
        (["model=repdistiller/ShuffleV1"], "repdistiller240_mobile_shuffle", None),
        (["model=repdistiller/ShuffleV1", "recipe=check"], "check", None),
        ([*LEARNER, "pair=resnet14__resnet8"], "repdistiller240", "repdistiller240"),
        ([*LEARNER, "model=repdistiller/ShuffleV1", "teacher=repdistiller/ResNet50"],
         "repdistiller240_mobile_shuffle", "repdistiller240"),
        ([*LEARNER, "pair=resnet14__resnet8", "recipe=check"], "check", "check"),
        ([*LEARNER, "pair=resnet14__resnet8", "teacher_recipe=nni160"], "repdistiller240", "nni160"),
        ([*LEARNER, "pair=resnet14__resnet8", "recipe=check", "teacher_recipe=nni160"], "check", "nni160"),
    ],
)  # fmt: skip  # a case a line
def test_each_network_trains_by_its_own_recipe_unless_another_is_asked_for(words, student, teacher):
    task = _parse(*words).task
    assert task.recipe.name == student
    assert (task.teacher_recipe and task.teacher_recipe.name) == teacher


def test_a_pair_is_a_model_and_a_teacher_whose_stage_is_that_of_its_baseline():
    learner = _parse(*LEARNER, "pair=resnet14__resnet8", "seed=3")
    assert (learner.task.model.name, learner.task.teacher.name) == ("repdistiller/resnet8", "repdistiller/resnet14")
    baseline = _parse("model=repdistiller/resnet14", "seed=3")
    (one,), (other,) = lives(learner, HERE), lives(baseline, HERE)
    assert one.key(one.plan.steps[0][1]) == other.key(other.plan.steps[0][1])
    assert one.run_file("").words.teacher == "repdistiller/resnet14"
    same = _parse(*LEARNER, "model=repdistiller/resnet8", "teacher=repdistiller/resnet14", "seed=3")
    assert lives(same, HERE)[0].digest == one.digest


def test_the_teachers_seed_follows_unless_it_is_given():
    def seeds(*words):
        found = _parse(*LEARNER, "pair=resnet14__resnet8", "seeds=2", *words)
        return [(life.plan.steps[0][1].params.task.seed, life.task.seed) for life in lives(found, HERE)]

    assert seeds("seed=4") == [(4, 4), (5, 5)]
    assert seeds("seed=4", "teacher_seed=0") == [(0, 4), (0, 5)]


def test_the_scale_cuts_both_recipes():
    task = _parse(*LEARNER, "pair=resnet14__resnet8", "scale=smoke").task
    assert (task.recipe.epochs, task.teacher_recipe.epochs) == (1, 1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["pair=resnet14__resnet8"], "method baseline learns from no teacher: leave out pair= and teacher="),
        (["method=pruning/l1", "teacher=nni/vgg19"], "method pruning/l1 learns from no teacher"),
        ([*LEARNER], "there is no teacher to learn from: give pair= or teacher="),
        (["teacher=nni/vgg61"], "unknown teacher 'nni/vgg61'; did you mean .*nni/vgg16"),
        (["teacher_recipe=chek"], "unknown teacher_recipe 'chek'; did you mean check"),
        (["teacher_seed=3"], "teacher_seed= goes with teacher= or pair="),
        (["teacher_recipe=check"], "a teacher's recipe a teacher"),
        (["start=distillation/kd", "pair=resnet14__resnet8"], "method.start: unknown name"),
        (["method=pruning/l1", "start=distilation/kd"], "unknown start 'distilation/kd'; did you mean distillation/kd"),
        (["method=pruning/l1", "start=distillation/kd"], "there is no teacher to learn from: give pair= or teacher="),
        (["model@student=nni/vgg16"], "Could not override 'model@student'"),
    ],
)
def test_a_teacher_that_nobody_learns_from_and_a_learner_without_one_are_refused(words, wanted):
    with pytest.raises(ConfigError, match=wanted):
        _parse(*words)


# --- ad-hoc sweeps -------------------------------------------------------------------------------------------------


def test_a_sweep_over_methods_takes_a_setting_that_only_they_have():
    """Hydra's own sweeper first composes what does not sweep, and finds no such setting in the default method."""
    jobs = study.sweep(["method=pruning/l1,pruning/l2", "method.finetune_epochs=2"])
    assert jobs == [[f"method=pruning/{name}", "method.finetune_epochs=2"] for name in ("l1", "l2")]
    found = [config.parse(config.compose(job), GPU)[0].build_method() for job in jobs]
    expected = [(f"methods.pruning.criteria.{name}:{name}", 2) for name in ("l1", "l2")]
    assert [(method.criterion, method.finetune_epochs) for method in found] == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("seed=range(0,3)", ["seed=0", "seed=1", "seed=2"]),
        ("seed=1,2,1", ["seed=1", "seed=2"]),
        ("method.sparsity=choice(0.3,0.5)", ["method.sparsity=0.3", "method.sparsity=0.5"]),
        ("model=glob(nni/vgg*)", ["model=nni/vgg13", "model=nni/vgg16", "model=nni/vgg19"]),
        ("teacher=glob(nni/vgg1*)", ["teacher=nni/vgg13", "teacher=nni/vgg16", "teacher=nni/vgg19"]),
        ("inference.batch_sizes=[1,2]", ["inference.batch_sizes=[1,2]"]),
    ],
)
def test_a_sweep_speaks_hydras_grammar(word, expected):
    assert study.sweep([word]) == [[each] for each in expected]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model=glob(zz*)", "nothing to sweep over"),
        ("seed=interval(0,1)", "an interval cannot be swept"),
        ("seed=1,,2", "seed=1,,2"),
        ("sed=1,2", "did you mean seed"),
        ("hydra.sweep.dir=x", "its settings would change nothing"),
    ],
)
def test_a_sweep_over_nothing_is_refused(word, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        study.sweep([word])


class Broken(Fake):
    """Seems to run, and turns out not to when its library is imported."""

    def prove(self, precision, device):
        raise EngineError(f"fake has no kernels for {precision} on {device}")


def test_an_engine_that_turns_out_not_to_run_refuses_its_life_before_any_stage_and_is_not_replaced():
    here = Here(device_kind="cuda", machine="here", engines=(*GPU.engines, Broken()))
    found = refusals([lives(_parse("engine=fake", here=here), HERE)[0]], here, "cuda:0")
    assert found == {0: "baseline on nni/vgg16: fake has no kernels for fp32 on cuda:0"}
    assert _parse(here=here).engine == "fake", "auto goes by what costs no import"
    far = lives(_parse("engine=fake", "hardware.infer=far", here=here), Place("here", "far", "1"))[0]
    assert refusals([far], here, "cuda:0") == {}


# --- quantization ----------------------------------------------------------------------------------------------------


def test_quantization_is_a_plan_deployed_otherwise_and_shares_every_stage_with_it():
    own, plain = (
        lives(_parse(*words, here=FAKED), HERE)[0]
        for words in (("method=quantization/int8",), ("method=baseline", "deploy_precision=int8"))
    )
    assert own.phase_keys() == plain.phase_keys()
    assert [phase for phase, _ in own.steps()] == [Phase.BASE, Phase.COMPRESS, Phase.DEPLOY]
    assert own.run_file("").words.deploy_precision == "int8"
    assert own.name.startswith("quantization.int8-nni.vgg16-cifar100-full-fast-tf32-int8-fake")
    half = lives(_parse("method=quantization/fp16", here=FAKED), HERE)[0]
    assert [phase for phase, _ in half.steps()] == [Phase.BASE, Phase.DEPLOY]
    assert half.phase_keys()[0] == own.phase_keys()[0]


def test_quantization_may_start_from_any_method():
    words = ("method=quantization/int8", "start=pruning/l1")
    own = lives(_parse(*words, here=FAKED), HERE)[0]
    pruned = lives(_parse("method=pruning/l1", "deploy_precision=int8", here=FAKED), HERE)[0]
    assert own.phase_keys() == pruned.phase_keys()


@pytest.mark.parametrize("word", ["calibration.images=64", "calibration.algorithm=max", "seed=3"])
def test_how_scales_are_found_is_in_their_key_and_in_no_other(word):
    def keys(*words):
        life = lives(_parse("method=quantization/int8", *words, here=FAKED), HERE)[0]
        return [life.key(stage) for _, stage in life.plan.steps]

    before, after = keys(), keys(word)
    assert (before[0] == after[0]) is (word != "seed=3"), "the base training knows nothing of it"
    assert before[1] != after[1]
