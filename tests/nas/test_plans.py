"""Searches as plans and words: presets, what is refused, what is measured, and what nobody measured."""

from __future__ import annotations

import hashlib
import math
import pickle
import re

import numpy as np
import pytest
import torch

from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.plan.config import ConfigError, experiment
from benchmark.plan.folders import names
from benchmark.plan.life import lives
from benchmark.plan.stage import Bound, Phase, Plan, Precision
from benchmark.plan.task import Data
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.checks import check
from benchmark.report.rows import stage_rows
from benchmark.report.sheets import numbers_of
from benchmark.report.summary import summarise
from benchmark.report.tables import footnotes
from benchmark.run.schedule import refusals
from benchmark.vision import data, files
from benchmark.vision.builders import build
from benchmark.vision.network import load
from methods.baseline import Baseline
from methods.nas import spaces
from methods.nas.darts.genotype import PUBLISHED
from methods.nas.plan import Darts, Given, Proxyless, ZeroCost
from tests.harness.helpers import CPU, GPU, HERE, QUICK, here_of, lives_of, tiny_experiment, work_all

PRESETS = [name for name in names("method") if name.startswith("nas/")]


def _parse(*words, here=GPU):
    return config.parse(config.compose(list(words)), here)[0]


def _life(*words, here=GPU):
    return lives(_parse(*words, here=here), HERE)[0]


# --- presets -----------------------------------------------------------------------------------------------------


def test_the_presets_are_those_of_the_docs():
    assert sorted(
        f"nas/{name}"
        for name in (
            "darts", "darts_short", "darts_genotype", "darts_tiny", "proxylessnas", "proxylessnas_energy",
            "proxylessnas_tiny", "proxyless_tree", "proxyless_published", "zero_cost", "random",
        )
    ) == PRESETS  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_plans_a_life_that_ends_in_its_own_network(name):
    life = _life(f"method={name}")
    *searched, (phase, trained) = life.plan.steps
    assert (phase, trained.fn) == (Phase.RETRAIN, "methods.nas.stages:retrain")
    assert all(phase is Phase.COMPRESS for phase, _ in searched)
    assert bool(searched) != bool(life.plan.unmeasured), "either it is measured, or it says that it is not"
    assert life.task.model.name in life.name
    assert re.match(r"(darts-c\d+-\d+|pmb-(xs|s|m)|tree-b\d+)", life.task.model.name)
    assert trained.params.task.model == life.task.model
    assert life.task.data.name == "cifar100"


def test_the_full_settings_are_the_originals():
    darts = _life("method=nas/darts").plan.steps
    search, final = darts[0][1].params, darts[1][1].params
    assert (search.order, search.task.model.kwargs) == ("first", {"channels": 16, "cells": 8})
    assert (search.alphas.lr, search.alphas.betas, search.alphas.weight_decay) == (3e-4, (0.5, 0.999), 1e-3)
    own = search.task.recipe
    assert (own.epochs, own.batch_size, own.lr, own.final_lr, own.clip_norm) == (50, 64, 0.025, 0.001, 5)
    assert (own.momentum, own.weight_decay, own.cutout, own.schedule) == (0.9, 3e-4, 0, "cosine")
    last = final.task.recipe
    assert (last.epochs, last.batch_size, last.lr, last.final_lr, last.cutout) == (600, 96, 0.025, 0, 16)
    assert (final.auxiliary_weight, final.drop_path, final.task.model.kwargs) == (
        0.4,
        0.2,
        {"channels": 36, "cells": 20},
    )
    proxy = _life("method=nas/proxylessnas").plan.steps[0][1].params
    assert (proxy.weights_only_epochs + proxy.task.recipe.epochs, proxy.weights_only_epochs) == (120, 25)
    assert (proxy.every, proxy.mode, proxy.held_out, proxy.alphas.betas) == (5, "two", 0.1, (0.0, 0.999))
    assert (proxy.task.recipe.label_smoothing, proxy.task.recipe.nesterov, proxy.costs) == (0.1, True, None)


def test_a_searched_life_names_no_model_and_says_why():
    for words in (["model=nni/vgg16"], ["pair=resnet14__resnet8"]):
        with pytest.raises(ConfigError, match=r"method nas/darts brings the space that its network comes from"):
            _parse("method=nas/darts", *words)
    with pytest.raises(ConfigError, match="start=nas/darts: which network that is, is known when it was searched"):
        _parse("method=pruning/l1", "start=nas/darts")
    assert "model" not in config.compose(["method=nas/darts"])
    assert config.compose(["method=nas/darts"]).recipe.name == "darts600"
    assert config.compose(["method=nas/darts", "recipe=check"]).recipe.name == "check"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("method=nas/darts", "teacher=nni/vgg16"), "learns from no teacher"),
        (("method=nas/darts", "base_precision=bf16"), "base_precision: method nas/darts has no base training"),
        (("method=baseline", "data.search=cifar10"), "data.search=cifar10: method baseline searches nothing"),
        (("method=nas/darts_genotype", "data.search=cifar10"), "method nas/darts_genotype searches nothing"),
        (
            ("method=nas/darts", "data.search=cifar20"),
            "data: search=cifar20: an architecture can be searched on cifar10, cifar100, synthetic",
        ),
        (("method=nas/darts", "train_precision=fp16"), "train_precision=fp16: a search has no gradient scaler"),
        (("method=nas/darts", "profile=published"), "profile=published: searches do not reproduce the original's loop"),
        (("method=nas/darts", "method.backend=nni", "method.order=second"), "NNI 3.0 has only first-order DARTS"),
        (("method=nas/proxylessnas", "method.size=xl"), "size=xl: the space pmb has the sizes xs, s, m"),
        (
            ("method=nas/proxylessnas", "method.space=pbm"),
            "space=pbm is unknown: choose pmb, tree, or module:function for your own space",
        ),
        (
            ("method=nas/proxylessnas_energy", "method.costs.kind=heat"),
            "method.costs.kind: .*'macs', 'latency' or 'energy'",
        ),
        (("method=nas/darts_genotype", "method.genotype=DARTS_V3"), "method.genotype: .*'DARTS_V1' or 'DARTS_V2'"),
        (("method=nas/proxylessnas", "method.samples=5"), "samples is only for mode=reinforce"),
        (
            ("method=nas/proxylessnas", "method.mode=reinforce", "method.costs={kind: macs, rule: multiply}"),
            "mode=reinforce has its own rule",
        ),
        (("method=nas/zero_cost", "method.proxies=[]"), "method.proxies: .*at least 1 item"),
        (("method=nas/darts_genotype", "method.genotype=null"), "a published architecture is a genotype, or a space"),
    ],
)
def test_what_fits_no_search_is_refused_in_one_sentence(words, why):
    with pytest.raises(ConfigError, match=why):
        _parse(*words)


@pytest.mark.slow
def test_a_space_that_cannot_be_built_is_refused_before_work():
    found = [
        _life("method=nas/proxyless_published", "method.size=b6"),
        _life("method=nas/proxylessnas", "+scale.train_images=10"),
        _life("method=nas/zero_cost"),
        _life("method=nas/zero_cost", "scale=smoke", "method.images=500"),
        _life("method=nas/darts", "+scale.train_images=97"),
    ]
    why = refusals(found, CPU, "cpu")
    assert sorted(why) == [0, 1, 3, 4]
    assert "97 images in batches of 96 leave one alone, which the auxiliary head cannot train on" in why[4]
    assert "method.images=500: scale smoke has 256 training images" in why[3]
    assert "model tree-b6 cannot be built: ValueError: 18 blocks need 18 times 12 operations" in why[0]
    assert "scale.train_images=10: a share of 0.1 leaves too few to search on" in why[1]


def test_a_method_that_brings_its_network_must_name_its_recipe(tmp_path):
    values = tiny_experiment(tmp_path).model_dump()
    block = {"_target_": "methods.nas.plan.ZeroCost", "name": "nas/zero_cost"}
    with pytest.raises(ConfigError, match="method nas/zero_cost brings its own network: its file must name a recipe"):
        experiment({**values, "method": block})


# --- identity ----------------------------------------------------------------------------------------------------


def _keys(*words):
    life = _life(*words)
    return [life.key(stage) for _, stage in life.plan.steps]


@pytest.mark.slow
def test_a_search_is_shared_by_all_that_do_not_change_it():
    search, trained = _keys("method=nas/darts")
    for word in ("recipe=check", "method.retrain.channels=24", "deploy_precision=fp16", "calibration.images=1024"):
        assert _keys("method=nas/darts", word)[0] == search, word
    for word in ("method.search.lr=0.1", "method.order=second", "data.search=cifar10", "seed=1", "scale=small"):
        own = _keys("method=nas/darts", word)
        assert own[0] != search, word
        assert own[1] != trained, "what is trained rests on it"
    scores = _keys("method=nas/zero_cost")[0]
    assert _keys("method=nas/zero_cost", "recipe.epochs=10")[0] == scores
    assert _keys("method=nas/zero_cost", "method.candidates=10")[0] != scores


def test_a_table_of_costs_is_bound_to_its_device_and_serves_every_search_of_its_space():
    life = _life("method=nas/proxylessnas_energy")
    (phase, table), (_, search), _ = life.plan.steps
    assert (phase, table.bound, search.inputs) == (Phase.COMPRESS, Bound.DEVICE, {"costs": table})
    key = life.key(table)
    for word in ("seed=3", "method.search.lr=0.1", "data.search=cifar10", "scale=small", "method.costs.kind=latency"):
        assert _keys("method=nas/proxylessnas_energy", word)[0] == key, word
    assert _keys("method=nas/proxylessnas_energy", "method.size=m")[0] != key
    assert _keys("method=nas/proxylessnas_energy", "train_precision=bf16")[0] != key
    counted = _life("method=nas/proxylessnas_energy", "method.costs.kind=macs").plan
    assert len(counted.steps) == 2, "MACs are counted where they are needed"


def _looked_at(life):
    return {each.name for each in life.data_sets()}


def test_a_life_fetches_every_data_set_it_looks_at():
    assert _looked_at(_life("method=nas/darts", "data.search=cifar10")) == {"cifar10", "cifar100"}
    assert _looked_at(_life("method=nas/darts")) == _looked_at(_life()) == {"cifar100"}


def test_scales_cut_searches_too():
    life = _life("method=nas/proxylessnas", "scale=smoke")
    search = life.plan.steps[0][1].params
    assert (search.task.recipe.epochs, search.weights_only_epochs) == (1, 1)
    assert search.task.scale.train_images == 256


# --- phases that nobody measured -----------------------------------------------------------------------------------


def test_a_plan_leaves_only_phases_of_tec_unmeasured_and_gives_a_reason(task):
    plan = Baseline().plan(task)
    for phase, why in ((Phase.DEPLOY, "because"), (Phase.COMPRESS, "")):
        with pytest.raises(ValueError, match="a plan may leave a phase of TEC unmeasured, with a reason"):
            Plan(plan.steps, plan.network, Precision("fp32"), unmeasured={phase: why})


def test_what_nobody_measured_makes_another_plan_of_the_same_stages(tmp_path):
    from dataclasses import replace

    life = lives(tiny_experiment(tmp_path), HERE)[0]
    plan = replace(life.plan, unmeasured={Phase.COMPRESS: "long ago"})
    other = replace(life, plan=plan)
    twin = replace(other, plan=plan)
    assert life.run_file("now").unmeasured == {}
    assert other.run_file("now").unmeasured == {Phase.COMPRESS: "long ago"}
    other.__dict__["_twin"], twin.__dict__["_twin"] = life, life
    assert life.digest != other.digest == twin.digest


GENOTYPE = {"_target_": "methods.nas.plan.Given", "name": "nas/darts_genotype", "recipe": "t"}


def _experiment(root, block, **task):
    """A tiny life of a method that brings its network."""
    values = tiny_experiment(root, **{"scale": {"name": "test", "train_images": 40, "test_images": 20}, **task})
    values = values.model_dump(mode="json", exclude={"task": {"model"}})
    values["task"]["data"]["search"] = "synthetic"
    return experiment({**values, "method": block, "inference": QUICK})


@pytest.fixture
def genotype(tmp_path):
    block = {**GENOTYPE, "genotype": "DARTS_V2", "found": "elsewhere", "retrain": {"channels": 4, "cells": 3}}
    return _experiment(tmp_path, block)


def test_a_published_genotype_has_an_unknown_tec_with_its_reason_everywhere(tmp_path, genotype):
    device, store = find_device("cpu"), Store(tmp_path / "results", tmp_path / "artifacts")
    found = lives_of(genotype, device, store)
    work_all(tmp_path, device, found)
    book = Book.read(store)
    rows = stage_rows(book)
    unmeasured = next(row for row in rows if row.stage == "unmeasured")
    assert (unmeasured.phase, unmeasured.kind, unmeasured.grade, unmeasured.key) == ("compress", "TEC", "X", "")
    assert math.isnan(unmeasured.energy_wh)
    assert unmeasured.reason == "the search was not measured: elsewhere"
    (row,) = summarise(book, rows)
    assert math.isnan(row.tec_wh)
    assert math.isnan(row.compress_wh)
    assert math.isnan(row.g_1b)
    assert row.retrain_wh > 0
    assert row.spent_making_wh > 0, "what was spent here is known"
    assert (row.grade, row.rank_1b, row.missing) == ("X", "", "")
    assert row.notes == "TEC is unknown, phase compress: the search was not measured: elsewhere"
    assert any("TEC is unknown" in line for line in footnotes([row]))
    if row.energy_source.startswith("estimate"):  # its IEC is one, whatever the grade of its TEC
        assert numbers_of(row)["IEC mJ"].startswith("~")
        assert any(line.startswith("~ estimated") for line in footnotes([row]))
    faults = [finding.what for finding in check(store) if finding.fault and "commit" not in finding.what]
    assert faults == []
    assert any("TEC is unknown" in finding.what for finding in check(store))
    key = found[0].key(found[0].plan.network)
    network = load(store.outputs.load(key, store.copies(found[0].machine(Phase.RETRAIN), key))[0].network)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert not any("head" in name for name in network.state_dict()), "the auxiliary head is training's alone"


# --- whole lives -------------------------------------------------------------------------------------------------

RECIPE = {
    "name": "t", "epochs": 2, "batch_size": 16, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3, "schedule": "cosine",
}  # fmt: skip
ALPHAS = {"lr": 0.01, "betas": (0.0, 0.999)}
SEARCHES = {
    "proxyless": {
        "_target_": "methods.nas.plan.Proxyless", "size": "xs", "search": RECIPE, "alphas": ALPHAS, "every": 1,
        "weights_only_epochs": 1, "held_out": 0.25,
    },
    "zero_cost": {"_target_": "methods.nas.plan.ZeroCost", "size": "xs", "candidates": 3, "images": 8},
    "random": {"_target_": "methods.nas.plan.RandomChoice", "size": "xs", "candidates": 2, "search": RECIPE, "held_out": 0.25},
    "energy": {
        "_target_": "methods.nas.plan.Proxyless", "size": "xs", "search": RECIPE, "alphas": ALPHAS, "every": 1,
        "weights_only_epochs": 1, "held_out": 0.25, "costs": {"kind": "energy"}, "table_batch": 2, "table_seconds": 0.01,
    },
    "tree": {
        "_target_": "methods.nas.plan.Proxyless", "space": "tree", "size": "b2", "search": RECIPE, "alphas": ALPHAS,
        "every": 1, "weights_only_epochs": 1, "held_out": 0.25,
    },
    "darts": {
        "_target_": "methods.nas.plan.Darts", "search": RECIPE, "alphas": ALPHAS, "search_channels": 4, "search_cells": 3,
        "retrain": {"channels": 4, "cells": 3},
    },
    "darts_second": {
        "_target_": "methods.nas.plan.Darts", "search": RECIPE, "alphas": ALPHAS, "search_channels": 4, "search_cells": 3,
        "retrain": {"channels": 4, "cells": 3}, "order": "second",
    },
}  # fmt: skip
CHEAP = ("proxyless", "zero_cost")


@pytest.mark.parametrize(
    "name", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHES]
)
def test_a_search_runs_to_its_row_with_every_part_of_its_energy(tmp_path, name):
    block = {**SEARCHES[name], "name": f"nas/{name}", "recipe": "t"}
    device, store = find_device("cpu"), Store(tmp_path / "results", tmp_path / "artifacts")
    found = lives_of(_experiment(tmp_path, block), device, store)
    work_all(tmp_path, device, found)
    book = Book.read(store)
    rows = stage_rows(book)
    (row,) = summarise(book, rows)
    assert row.missing == ""
    assert row.compress_wh > 0
    assert row.retrain_wh > 0
    assert row.tec_wh == pytest.approx(row.compress_wh + row.retrain_wh)
    assert row.base_wh == 0
    compress = [each for each in rows if each.phase == "compress"]
    assert len(compress) == (2 if name == "energy" else 1)
    assert row.model == found[0].task.model.name
    life = found[0]
    searched = store.record(life.machine(Phase.COMPRESS), life.key(life.plan.steps[-2][1]))
    trained = store.record(life.machine(Phase.RETRAIN), life.key(life.plan.network))
    assert trained.details["architecture"] == searched.details["architecture"]
    network = life.task.model
    again = build(network.builder, {**network.kwargs, **searched.details["architecture"], "classes": 10})
    assert sum(p.numel() for p in again.parameters()) == trained.values["params"] == row.params
    assert [finding.what for finding in check(store) if finding.fault and "commit" not in finding.what] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["proxyless", "darts"])
def test_a_searched_network_is_deployed_in_int8(tmp_path, name):
    pytest.importorskip("onnxruntime", reason="engine=onnxruntime")
    block = {**SEARCHES[name], "name": f"nas/{name}", "recipe": "t"}
    experiment_ = _experiment(tmp_path, block, deploy_precision="int8", calibration={"images": 16})
    experiment_ = experiment_.model_copy(update={"engine": "onnxruntime"})
    device, store = find_device("cpu"), Store(tmp_path / "results", tmp_path / "artifacts")
    work_all(tmp_path, device, lives_of(experiment_, device, store))
    book = Book.read(store)
    (row,) = summarise(book, stage_rows(book))
    assert row.missing == ""
    assert row.agreement_pct > 50


@pytest.mark.slow
def test_a_space_of_ones_own_is_searched_without_touching_a_file_of_ours(tmp_path):
    """The space and its supernet lie in a test's module; so may those of anybody."""
    block = {**SEARCHES["proxyless"], "space": "tests.nas.small:own_space", "size": "any", "name": "own", "recipe": "t"}
    device, store = find_device("cpu"), Store(tmp_path / "results", tmp_path / "artifacts")
    found = lives_of(_experiment(tmp_path, block), device, store)
    work_all(tmp_path, device, found)
    book = Book.read(store)
    (row,) = summarise(book, stage_rows(book))
    assert (row.model, row.missing) == ("two", "")
    assert row.compress_wh > 0


# --- CIFAR-10, by a fixture --------------------------------------------------------------------------------------


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A tiny archive in CIFAR-10's format, whose md5 sums are those that are asked for."""
    folder = tmp_path / "data" / files.CIFAR["cifar10"].folder
    folder.mkdir(parents=True)
    generator, sums = np.random.default_rng(0), {}
    published = files.CIFAR["cifar10"]
    for file in (*published.train, *published.test):
        content = {"data": generator.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
        (folder / file).write_bytes(pickle.dumps(content))
        sums[file] = hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()
    found = published._replace(
        train={file: sums[file] for file in published.train}, test={file: sums[file] for file in published.test}
    )
    monkeypatch.setitem(files.CIFAR, "cifar10", found)
    return folder


@pytest.mark.slow
def test_a_search_on_another_data_set_is_trained_and_tested_on_its_own(tmp_path, cifar10):
    block = {**SEARCHES["proxyless"], "name": "nas/proxyless", "recipe": "t"}
    values = _experiment(tmp_path, block).model_dump(mode="json", exclude={"task": {"model"}})
    values["task"]["data"]["search"] = "cifar10"
    values["task"]["data"]["classes"] = 12
    searched_elsewhere = experiment(values)
    device, store = find_device("cpu"), Store(tmp_path / "results", tmp_path / "artifacts")
    (life,) = lives_of(searched_elsewhere, device, store)
    assert _looked_at(life) == {"cifar10", "synthetic"}
    work_all(tmp_path, device, [life])
    searched = store.record(life.machine(Phase.COMPRESS), life.key(life.plan.steps[0][1]))
    assert searched.params["task"]["data"]["name"] == "cifar10"
    assert searched.params["task"]["data"]["classes"] == 10
    trained = store.record(life.machine(Phase.RETRAIN), life.key(life.plan.network))
    assert trained.params["task"]["data"]["classes"] == 12


def test_a_damaged_data_set_of_a_search_stops_the_life_before_any_work(tmp_path, cifar10):
    from benchmark.vision.download import ensure

    wanted = Data(name="cifar10", classes=10)
    ensure(wanted, tmp_path / "data")
    (cifar10 / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(data.DataError, match="data_batch_3 is damaged"):
        ensure(wanted, tmp_path / "data")


# --- words and numbers -------------------------------------------------------------------------------------------


def test_published_genotypes_are_built_as_given():
    given = Given(genotype="DARTS_V1", found="x")
    assert given.own_model().name == "darts-c36-20-DARTS_V1"
    assert given._architecture() == {"genotype": PUBLISHED["DARTS_V1"]}


def test_spaces_know_their_words():
    with pytest.raises(ValueError, match="space=cube is unknown: choose pmb, tree"):
        spaces.space_of("cube", "s")
    with pytest.raises(ValueError, match=r"space=tests\.nas\.nowhere:x: No module named"):
        spaces.space_of("tests.nas.nowhere:x", "s")
    with pytest.raises(ValueError, match="must return a Space, not a Task"):
        spaces.space_of("tests.nas.small:task", None)
    space = spaces.tree("b2")
    ops = space.draw(0, 0)
    kwargs = space.architecture(ops)["ops"]
    assert [len(own) for own in kwargs] == [12] * 6
    assert [op for own in kwargs for op in own] == ops
    with pytest.raises(ValueError, match="'zero' is no operation of a block of stride 2"):
        build(
            "benchmark.vision.models.nas.pmb:pmb",
            {"ops": ["zero"], "widths": [8], "strides": [2], "classes": 3, "stem": 4},
        )
    broken = {**PUBLISHED["DARTS_V2"], "normal": [["skip_connect", 5]] * 8}
    with pytest.raises(ValueError, match="reads node 5, which does not come before it"):
        build("benchmark.vision.models.nas.darts:darts", {"genotype": broken, "channels": 4, "cells": 3, "classes": 3})


def test_methods_are_data(tmp_path):
    assert Darts.model_fields.keys() >= {"search", "order", "alphas", "retrain", "backend"}
    assert Proxyless.model_fields.keys() >= {"space", "size", "costs", "mode"}
    assert ZeroCost().own_model().name == "pmb-s"
    assert here_of(find_device("cpu")).device_kind == "cpu"
