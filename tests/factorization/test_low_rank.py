"""The method: its plan, what it refuses, and whole lives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.plan.stage import Output, Phase
from benchmark.plan.task import Data, Model
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.vision.builders import BuilderError
from benchmark.vision.macs import count
from benchmark.vision.models.factored import factored
from benchmark.vision.network import build_model, freeze, load
from methods.factorization.layers import candidates, choose, factor
from methods.factorization.plan import Factoring, LowRank
from methods.factorization.stages import factor as factor_stage
from tests.bench import PlainBench
from tests.harness.helpers import here_of, lives_of, tiny_experiment, work_all

DEVICE = find_device("cpu")
RESNET = Model(name="repdistiller/resnet8", builder="benchmark.vision.models.repdistiller.resnet:resnet8")


@pytest.fixture
def resnet(task):
    return task.model_copy(update={"model": RESNET})


@pytest.fixture
def trained(resnet):
    torch.manual_seed(3)
    return Output(network=freeze(build_model(RESNET, 10), RESNET, 10, resnet.recipe), values={"acc_pct": 10.0})


def test_base_then_factors_then_fine_tuning_that_draws_on(resnet):
    plan = LowRank(finetune_epochs=20).plan(resnet)
    assert [(phase, stage.fn) for phase, stage in plan.steps] == [
        (Phase.BASE, "methods.training:train"),
        (Phase.COMPRESS, "methods.factorization.stages:factor"),
        (Phase.RETRAIN, "methods.stages:finetune"),
    ]
    tuning = plan.network.params
    assert (tuning.first_epoch, tuning.task.recipe.epochs, tuning.task.recipe.lr) == (resnet.recipe.epochs, 20, 0.01)
    assert plan.steps[1][1].params.energy == 0.9
    by_macs = LowRank(macs=0.5).plan(resnet).steps[1][1].params
    assert (by_macs.energy, by_macs.macs) == (None, 0.5), "energy is not read then, and so in no key"
    assert len(LowRank(finetune_epochs=0).plan(resnet).steps) == 2


def test_the_factored_network_counts_what_it_says_and_comes_back_from_its_artifact(resnet, trained):
    made = factor_stage(PlainBench(), Factoring(task=resnet, energy=0.8), trained)
    module = load(made.network)
    dense = load(trained.network)
    ranks = {name: tuple(rank) for name, rank in made.details["ranks"].items()}
    own = {each.name: each for each in candidates(dense)}
    assert count(module) == (made.values["params"], made.values["macs"])
    assert made.values["macs"] == count(dense)[1] - sum(
        own[name].macs() - own[name].macs(ranks[name]) for name in ranks
    )
    assert set(ranks) | set(made.details["layers_kept"]) == set(own)
    assert all(own[name].macs(rank) < own[name].macs() for name, rank in ranks.items())
    kept = [own[name] for name in made.details["layers_kept"]]
    assert all(each.macs(each.ranks(0.8, each.singular())) >= each.macs() for each in kept)
    assert made.values["acc_before_pct"] == 10.0
    images = torch.randn(2, 3, 32, 32)
    near, exact = module(images), dense(images)
    assert 0 < float((near - exact).detach().norm() / exact.detach().norm()) < 0.9, "it approximates"


def test_a_target_of_macs_is_met_as_closely_as_ranks_allow(trained):
    dense = load(trained.network)
    ranks, energy = choose(dense, None, 0.5)
    left = count(factor(dense, ranks))[1] / count(dense)[1]
    assert 0.45 < left <= 0.5
    more, _ = choose(dense, min(energy * 1.02, 0.999), None)
    assert count(factor(dense, more))[1] / count(dense)[1] > 0.5


@pytest.mark.parametrize(
    ("method", "model", "message"),
    [
        (LowRank(macs=0.001), RESNET, "out of reach: at rank one everywhere 0.0"),
        (LowRank(), Model(name="thin", builder="tests.factorization.test_low_rank:thin"), "nothing to factor"),
    ],
)
def test_what_cannot_shrink_is_refused_before_training(task, method, model, message):
    with pytest.raises(ValueError, match=f"{model.name} cannot be factored with these settings: .*{message}"):
        method.check(task.model_copy(update={"model": model}))


def thin(classes):
    """Depthwise, and a classifier of one input: rank one costs more."""
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1), nn.Linear(1, classes)
    )


def test_where_nothing_shrinks_at_this_energy_the_stage_says_what_to_change(resnet, trained):
    with pytest.raises(ValueError, match=r"energy=0.9999.*lower method.energy"):
        factor_stage(PlainBench(), Factoring(task=resnet, energy=0.9999), trained)


@pytest.mark.parametrize(
    "name", ["nni/vgg16", "nni/resnet50", "repdistiller/MobileNetV2", "repdistiller/ShuffleV2", "repdistiller/wrn_16_2"]
)
def test_networks_of_the_zoo_have_layers_to_factor(name):
    parsed, _ = config.parse(config.compose([f"model={name}", "method=factorization/low_rank"]), here_of(DEVICE))
    with torch.device("meta"):
        network = build_model(parsed.task.model, 100)
    found = candidates(network)
    dense = [
        part
        for part in network.modules()
        if isinstance(part, nn.Conv2d | nn.Linear) and getattr(part, "groups", 1) == 1
    ]
    assert len(found) == len(dense)
    assert sum(each.macs() for each in found) <= count(network)[1]
    assert any(each.smallest() < each.macs() / 10 for each in found)


def test_a_factored_artifact_chooses_no_code():
    with pytest.raises(BuilderError, match="may not run"):
        factored("os:system", {"command": "true"}, {})
    with pytest.raises(ValueError, match="cannot be factored"):
        factored(RESNET.builder, {"classes": 10}, {"conv1": [1, 1], "stages.0.0.bn1": [1]})


def _block(**values):
    return {"_target_": "methods.factorization.plan.LowRank", "name": "factorization/low_rank", **values}


def test_a_life_ends_in_a_smaller_network_in_its_row(tmp_path):
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    experiment = tiny_experiment(tmp_path).model_copy(update={"method": _block(energy=0.5, finetune_epochs=1)})
    (life,) = lives_of(experiment, DEVICE, store)
    work_all(tmp_path, DEVICE, [life])
    book = Book.read(store)
    stages = stage_rows(book)
    (row,) = summarise(book, stages)
    assert [(stage.phase, stage.stage) for stage in stages] == [
        ("base", "train"), ("compress", "factor"), ("retrain", "finetune"), ("deploy", "build_engine"), ("infer", "inference"),
    ]  # fmt: skip  # one step a line would hide the shape
    assert row.macs == stages[1].macs < stages[0].macs
    assert row.params < stages[0].params
    assert min(row.base_wh, row.compress_wh, row.retrain_wh) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "start"), [("pruning/l1", "factorization/low_rank"), ("factorization/low_rank", "pruning/l1")]
)
def test_it_goes_before_and_after_pruning_and_into_int8(tmp_path, method, start):
    words = [
        f"method={method}", f"start={start}", "model=repdistiller/resnet14", "data=synthetic", "scale=smoke", "hardware=cpu",
        "deploy_precision=int8", f"paths.results={tmp_path / 'results'}", f"paths.artifacts={tmp_path / 'artifacts'}",
    ]  # fmt: skip  # one word a line would hide the shape
    experiment, _ = config.parse(config.compose(words), here_of(DEVICE))
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store))
    book = Book.read(store)
    stages = stage_rows(book)
    (row,) = summarise(book, stages)
    assert row.missing == ""
    assert row.macs < stages[0].macs / 2
    assert row.executed_precision.startswith("int8")
    assert Data(name="synthetic", classes=100).name == row.data
