"""Whole life cycles of every pruner on a tiny network; what plans promise; what is refused before any work."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.plan.config import ConfigError
from benchmark.plan.life import lives
from benchmark.plan.stage import Phase, Plan, Precision, Stage
from benchmark.plan.task import Config, Model, Params, Task
from benchmark.records.store import Store
from benchmark.vision import network
from benchmark.vision.data import loaders
from benchmark.vision.evaluation import accuracy
from benchmark.vision.training import fit, loss_of, seed_everything
from methods.baseline import base_training
from methods.pruning.plan import agp
from tests.bench import PlainBench
from tests.harness.helpers import GPU, HERE, lives_of, tiny_experiment, work_all
from tests.pruning import presets

SHRUNK = -2  # the stage before the engine
MINI = {"name": "mini", "builder": "tests.pruning.nets:mini"}


def _experiment(root, criterion, **settings):
    scale = {"name": "test", "train_images": 96, "test_images": 64, "max_epochs": 2}
    plain = tiny_experiment(root, model=MINI, scale=scale)
    return plain.model_copy(update={"method": presets.words(criterion, **settings)})


class Lab:
    """A store, a device, and the records of what was run."""

    def __init__(self, root) -> None:
        self.root = root
        self.store = Store(root / "results", root / "artifacts")
        self.device = find_device("cpu")

    def run(self, *experiments):
        found = [life for e in experiments for life in lives_of(e, self.device, self.store)]
        work_all(self.root, self.device, found)
        return [self.records(life) for life in found]

    def records(self, life):
        return [self.store.record(life.machine(phase), life.key(stage)) for phase, stage in life.steps()]

    def output(self, record):
        return self.store.outputs.load(record.key, [record.artifact])[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("backend", ["native", pytest.param("nni", marks=pytest.mark.slow)])
@pytest.mark.parametrize("criterion", presets.NAMES)
def test_every_pruner_runs_from_base_training_to_inference(lab, criterion, backend):
    if backend == "nni":
        pytest.importorskip("nni")
    (records,) = lab.run(_experiment(lab.root, criterion, backend=backend))
    extra = ["extra_epochs"] if criterion in presets.LOOKING else []
    names = [record.fn.rpartition(":")[2] for record in records]
    assert names == ["train", "mask", *extra, "finetune", "shrink", "build_engine"]
    base, mask, *more, tuned, shrunk, deployed = records
    assert all(record.joules > 0 for record in records)
    assert mask.values["acc_before_pct"] == base.values["acc_pct"]
    assert tuned.values["acc_before_pct"] == (more or [mask])[0].values["acc_pct"], "masked, right before fine-tuning"
    assert shrunk.values["acc_masked_pct"] == tuned.values["acc_pct"]
    assert deployed.values["acc_pct"] == shrunk.values["acc_pct"]
    test = loaders(_experiment(lab.root, criterion).task, lab.root, "cpu").test
    for record in (mask, *more, tuned, shrunk):
        assert accuracy(network.load(lab.output(record).network), test) == record.values["acc_pct"]
    assert deployed.values["params"] == shrunk.values["params"] < base.values["params"]
    assert shrunk.values["macs"] < base.values["macs"]
    assert [record.values["epochs"] for record in more] == [1] * len(extra)
    masks = lab.output(mask).arrays
    assert {name: int(layer.sum()) for name, layer in masks.items()} == {
        "conv1": 4, "block1.conv1": 4, "block1.conv2": 4, "block2.conv1": 6, "block2.conv2": 6, "block2.shortcut.0": 6,
    }  # fmt: skip  # a line reads best
    for output in (lab.output(record) for record in (mask, *more, tuned)):
        for name, layer in masks.items():
            assert output.network.tensors[f"{name}.weight"][~layer].abs().sum() == 0
            assert output.network.tensors[f"{name}.weight"][layer].abs().sum() > 0
        assert output.network.tensors["conv1.bias"][~masks["conv1"]].abs().sum() == 0
    assert not torch.equal(
        lab.output(mask).network.tensors["fc.weight"], lab.output(tuned).network.tensors["fc.weight"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("criterion", presets.NAMES)
def test_the_backends_end_in_the_same_network(lab, criterion):
    pytest.importorskip("nni")
    native, nni = lab.run(*(_experiment(lab.root, criterion, backend=backend) for backend in ("native", "nni")))
    ours, theirs = (lab.output(records[SHRUNK]).network.tensors for records in (native, nni))
    # NNI's new batch norms count their batches from 0; nobody reads that count
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not name.endswith("num_batches_tracked"))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network_and_another_seed_another(lab, tmp_path):
    again = Lab(tmp_path)
    experiment = _experiment(lab.root, "taylorfo")
    first, second = (one.output(one.run(experiment)[0][SHRUNK]).network.tensors for one in (lab, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = experiment.model_copy(update={"task": experiment.task.model_copy(update={"seed": 1})})
    third = again.output(again.run(other)[0][SHRUNK]).network.tensors
    assert not all(torch.equal(first[name], third[name]) for name in first if first[name].shape == third[name].shape)


def test_shrinking_first_trains_the_small_network(lab):
    (records,) = lab.run(_experiment(lab.root, "l1", finetune="shrink_first", mode="dependency_aware"))
    base, _, shrunk, tuned, _ = records
    assert [record.fn.rpartition(":")[2] for record in records[2:4]] == ["shrink", "finetune"]
    assert tuned.values["acc_before_pct"] == shrunk.values["acc_pct"]
    assert tuned.values["params"] == shrunk.values["params"] < base.values["params"]
    widths = shrunk.details["filters"]
    assert widths["conv1"] == widths["block1.conv2"] == 4
    assert widths["block2.conv2"] == widths["block2.shortcut.0"] == 6


@pytest.mark.parametrize(("criterion", "mode"), [("fpgm", "independent"), ("taylorfo", "dependency_aware")])
def test_gradual_pruning_removes_more_and_more(lab, criterion, mode):
    settings = {"schedule": "agp", "agp_iterations": 3, "agp_epochs": 1, "finetune_epochs": 0, "mode": mode}
    (records,) = lab.run(_experiment(lab.root, criterion, **settings))
    assert [record.fn.rpartition(":")[2] for record in records] == [
        "train",
        *["mask", "finetune"] * 3,
        "shrink",
        "build_engine",
    ]
    first, second, third = (lab.output(records[number]).arrays for number in (1, 3, 5))
    assert first is None
    assert set(second) == set(third)
    for name in third:
        assert 0 < (~second[name]).sum() < (~third[name]).sum()
        assert not third[name][~second[name]].any(), "what was removed stays removed"


@pytest.mark.parametrize(("criterion", "dense"), [("taylorfo", True), ("apoz", False)])
def test_the_extra_epoch_trains_the_dense_network_for_taylorfo_alone(lab, criterion, dense):
    experiment = _experiment(lab.root, criterion)
    (records,) = lab.run(experiment)
    (life,) = lives_of(experiment, lab.device, lab.store)
    params = life.plan.steps[2][1].params
    task, first = params.task, params.first_epoch
    assert first == records[0].values["epochs"]
    model = network.load(lab.output(records[0]).network)
    seed_everything(task.seed, first)
    fit(PlainBench(), model, loaders(task, lab.root, "cpu", first), loss_of(task.recipe), task)
    output = lab.output(records[2])
    assert torch.equal(output.network.tensors["fc.weight"], model.fc.weight) == dense
    masks = lab.output(records[1]).arrays
    for name, mask in output.arrays.items():  # both end masked
        assert torch.equal(mask, masks[name])
        weight = output.network.tensors[f"{name}.weight"]
        assert weight[~mask].abs().sum() == 0
        assert torch.equal(weight[mask], model.get_submodule(name).weight[mask]) == dense


# --- plans ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def task160(task):
    return task.model_copy(
        update={"recipe": task.recipe.model_copy(update={"epochs": 160, "lr": 0.1}), "scale": task.scale}
    )


def _recipes(plan):
    return {stage.name: stage.params.task.recipe for _, stage in plan.steps}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "l1"}, {"finetune": [160]}),
        ({"name": "apoz"}, {"mask": [160], "extra_epochs": [160], "finetune": [161]}),
        ({"name": "apoz", "extra_epochs": 0}, {"mask": [160], "finetune": [160]}),
        (
            {"name": "apoz", "schedule": "agp", "agp_iterations": 3, "agp_epochs": 2},
            {"mask": [160, 162, 164], "finetune": [160, 162, 164, 166]},
        ),
    ],
)
def test_no_stage_repeats_the_draws_of_an_earlier_one(task160, settings, expected):
    found = {}
    for _, stage in presets.pruning(**settings).plan(task160).steps:
        if getattr(stage.params, "first_epoch", 0):
            found.setdefault(stage.name, []).append(stage.params.first_epoch)
    assert found == expected


def test_a_plan_starts_with_the_shared_base_training(task160):
    for criterion in presets.NAMES:
        assert presets.pruning(criterion).plan(task160).steps[0][1] == base_training(task160)


def _started(*words):
    parsed = config.parse(config.compose(["pair=resnet14__resnet8", *words]), GPU)[0]
    return parsed.build_method(), parsed.task


@pytest.mark.parametrize(("start", "before", "epochs"), [("kd", ["distil"], 240), ("ab", ["initial", "distil"], 270)])
def test_a_distilled_network_is_pruned_in_the_place_of_a_plainly_trained_one(start, before, epochs):
    words = ("method=pruning/apoz", f"start=distillation/{start}")
    pruning, task = _started(*words)
    plan, alone = pruning.plan(task), _started(f"method=distillation/{start}")[0].plan(task)
    assert plan.steps[: len(alone.steps)] == alone.steps, "its stages are those of its own experiment"
    names = [stage.name for _, stage in plan.steps]
    assert names == ["train", *before, "mask", "extra_epochs", "finetune", "shrink"]
    masked, extra, tuned = (plan.steps[names.index(name)][1] for name in ("mask", "extra_epochs", "finetune"))
    assert masked.inputs == {"trained": alone.network}
    found = [stage.params.first_epoch for stage in (masked, extra, tuned)]
    assert found == [epochs, epochs, epochs + 1], "images are drawn on after all that trained the network"
    assert tuned.params.task.teacher is None
    pruning.check(task)
    run = lives(config.parse(config.compose(["pair=resnet14__resnet8", *words]), GPU)[0], HERE)[0].run_file("")
    assert run.settings["method.start.name"] == f"distillation/{start}"
    assert not any("_target_" in name for name in run.settings), "a run file names no code"


def test_what_a_life_starts_from_is_refused_as_it_would_be_alone():
    pruning, task = _started("method=pruning/l1", "start=distillation/fsp")
    wide = task.model_copy(
        update={"teacher": Model(name="w", builder="benchmark.vision.models.repdistiller.resnet:resnet8x4")}
    )
    with pytest.raises(ValueError, match="FSP compares maps channel by channel"):
        pruning.check(wide)
    with pytest.raises(ConfigError, match=r"start\.variant: Input should be 'as_shipped' or 'no_waste'"):
        _started("method=pruning/l1", "start=distillation/kd", "method.start.variant=lean")
    with pytest.raises(ConfigError, match="start: mine is not a method"):
        _started("method=pruning/l1", "+method.start={_target_: no.where, name: mine}")


def test_fine_tuning_has_a_recipe_of_its_own(task160):
    recipes = _recipes(presets.pruning("apoz").plan(task160))
    tuned, extra = recipes["finetune"], recipes["extra_epochs"]
    assert (tuned.epochs, tuned.lr, tuned.schedule, tuned.milestones, tuned.gamma) == (
        20,
        0.01,
        "multistep",
        (0.5, 0.75),
        0.1,
    )
    assert (extra.epochs, extra.lr, extra.schedule) == (1, 0.01, "constant")
    assert (tuned.batch_size, tuned.mean, tuned.weight_decay) == (32, task160.recipe.mean, task160.recipe.weight_decay)
    short = task160.model_copy(update={"scale": task160.scale.model_copy(update={"max_epochs": 3})})
    assert _recipes(presets.pruning("apoz").plan(short))["finetune"].epochs == 3
    assert _recipes(presets.pruning("apoz", finetune_epochs=160).plan(task160))["finetune"].epochs == 160


def test_phases_are_the_papers(task160):
    phases = [str(phase) for phase, _ in presets.pruning("l1").plan(task160).steps]
    assert phases == ["base", "compress", "retrain", "compress"]
    phases = [str(phase) for phase, _ in presets.pruning("l1", finetune="shrink_first").plan(task160).steps]
    assert phases == ["base", "compress", "compress", "retrain"]


def test_a_setting_that_a_criterion_does_not_read_changes_no_key(task160):
    def keys(**settings):
        return [stage.key("") for _, stage in presets.pruning(**settings).plan(task160).steps]

    assert keys(name="l1") == keys(name="l1", statistics_batches=9, nni_pruner=None)
    assert keys(name="l1")[:2] == keys(name="l1", finetune_lr=0.1, finetune_epochs=160)[:2]
    assert keys(name="l1")[2] != keys(name="l1", finetune_lr=0.1)[2]
    assert keys(name="apoz")[1] != keys(name="apoz", finetune_lr=0.1)[1]
    assert keys(name="taylorfo") != keys(name="taylorfo", settings={"taylor_weights": "pre"})
    assert keys(name="apoz") != keys(name="apoz", settings={"activation_site": "post_bn"})
    assert keys(name="l1")[0] == keys(name="fpgm")[0]


def test_agp_is_cubic_from_nothing_to_all():
    assert list(agp(0.5, 3)) == [0, 0.5 * (1 - 0.125), 0.5]
    found = list(agp(0.8, 10))
    assert found[0] == 0
    assert found[-1] == 0.8
    assert all(a < b for a, b in itertools.pairwise(found))
    assert math.isclose(found[1], 0.8 * (1 - (8 / 9) ** 3))
    assert list(agp(0.5, 1)) == [0.5]


# --- refusals and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "builder", "words"),
    [
        (
            {},
            "tests.pruning.nets:opaque",
            "opaque cannot be pruned with these settings: .* nothing is known of Softmax",
        ),
        ({"layers": "nni"}, "tests.pruning.nets:mini", "layers=nni: the network has none"),
        ({"layers": "nni_resnet"}, "tests.pruning.nets:mini", "layers=nni_resnet: the network has none"),
        ({"sparsity": 0.05}, "tests.pruning.nets:mini", "sparsity of 0.05 .* removes no filter"),
        ({"backend": "nni"}, "benchmark.vision.models.repdistiller.mobilenetv2:mobilenetv2", "use backend=native"),
        ({"name": "apoz", "statistics_batches": 4}, "tests.pruning.nets:mini", "an epoch has 3 batches"),
        ({}, "tests.pruning.nets:joined", "joined cannot be pruned with these settings: .*it joins features"),
        ({}, "tests.pruning.nets:missing", "cannot be built"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_any_training(task, settings, builder, words):
    odd = task.model_copy(update={"model": Model(name=builder.partition(":")[2], builder=builder)})
    with pytest.raises(ValueError, match=words):
        presets.pruning(**{"name": "l1", **settings}).check(odd)


@pytest.mark.slow
def test_every_network_of_the_zoo_can_be_pruned():
    for name in config.names("model"):
        parsed = config.parse(config.compose([f"model={name}", "method=pruning/l1"]), GPU)[0]
        if name == "repdistiller/ShuffleV1":  # its streams have many owners: independent masks leave them all
            with pytest.raises(
                ValueError, match=r"only about 18 of 4014 filters can be removed.* try mode=dependency_aware"
            ):
                parsed.build_method().check(parsed.task)
            parsed = parsed.model_copy(update={"method": {**parsed.method, "mode": "dependency_aware"}})
        parsed.build_method().check(parsed.task)


@pytest.mark.parametrize("criterion", presets.NAMES)
def test_a_preset_is_the_papers_setting(criterion):
    method = config.parse(config.compose([f"method=pruning/{criterion}"]), GPU)[0].build_method()
    assert method == presets.pruning(criterion)
    assert (method.finetune, method.finetune_epochs, method.sparsity, method.mode, method.layers) == (
        "masked",
        20,
        0.5,
        "independent",
        "all",
    )


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("method.sparsity=1", "less than 1"),
        ("method.sparsity=0", "greater than 0"),
        ("method.mode=global", "independent"),
        ("method.layers=most", "nni_conv13"),
        ("method.criterion=l3", "a function is named module:function"),
        ("method.settings.activation=relu", "method.settings.activation"),
        ("method.nni_pruner=l1", "a function is named module:function"),
        ("method.finetune_epochs=-1", "greater than or equal to 0"),
        ("method.sparsitty=0.5", "did you mean method.sparsity"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(word, wanted):
    with pytest.raises(ConfigError, match=wanted):
        config.parse(config.compose(["method=pruning/l1", word]), GPU)


def test_gradual_pruning_by_nni_is_refused():
    with pytest.raises(ConfigError, match="schedule=agp needs backend=native"):
        config.parse(config.compose(["method=pruning/l1", "method.schedule=agp", "method.backend=nni"]), GPU)


# --- starting from any method -------------------------------------------------------------------------------------


class Averaged(Params):
    """Parameters of a stage that trains on under a name of its own."""

    task: Task
    first_epoch: int = 0


class Elsewhere(Config):
    """A method of somebody else: trains on, and then measures something, which is no network."""

    def plan(self, task):
        base = base_training(task)
        averaged = Stage("mine:average", Averaged(task=task, first_epoch=8), {"trained": base})
        table = Stage("mine:table", Params(), {"network": averaged})
        steps = ((Phase.BASE, base), (Phase.RETRAIN, averaged), (Phase.COMPRESS, table))
        return Plan(steps=steps, network=averaged, deploy=Precision("fp32"))

    def check(self, task):
        """Nothing to refuse."""


class Untold(Elsewhere):
    """The same, and nobody says how long anything trains."""

    def plan(self, task):
        made = Stage("mine:made", Params())
        return Plan(steps=((Phase.BASE, made),), network=made, deploy=Precision("fp32"))


def _start(kind) -> dict:
    return {"_target_": f"{__name__}.{kind.__name__}", "name": "mine"}


def test_pruning_goes_on_with_the_network_of_any_plan_and_repeats_none_of_its_draws(tmp_path):
    task = _experiment(tmp_path, "l1").task
    plan = presets.pruning("l1", start=_start(Elsewhere)).plan(task)
    by_name = {stage.name: stage for _, stage in plan.steps}
    assert by_name["mask"].inputs["trained"] is by_name["average"], "not the table, which came last"
    assert by_name["finetune"].params.first_epoch == 8 + task.recipe.epochs


def test_a_start_that_does_not_say_how_long_it_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no step says how long it trains"):
        presets.pruning("l1", start=_start(Untold)).plan(_experiment(tmp_path, "l1").task)


def test_a_row_names_what_its_method_started_from(tmp_path):
    experiment = _experiment(tmp_path, "l1", start={**_start(Elsewhere)})
    assert lives(experiment, HERE)[0].run_file("").words.method == "pruning/l1 after mine"
