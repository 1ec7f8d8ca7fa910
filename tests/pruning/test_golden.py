"""Every golden case of NNI 2.10.1 (and what of 2.3 differs) against the native backend, in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from benchmark.vision.macs import count
from benchmark.vision.models.nni import resnet, vgg
from methods.pruning.criteria.l1 import l1
from methods.pruning.criteria.steps import train
from methods.pruning.criteria.subject import Subject
from methods.pruning.masks import choose, hold, lowest_removed
from methods.pruning.removal import shrink, zero
from methods.pruning.scores import score
from methods.pruning.trace import follow
from tests.data import golden_inputs
from tests.pruning import golden, presets
from tests.pruning.golden import CASES, CRITERIA, GOLDEN, RECIPE


def _near(found, expected, relative=1e-10):
    expected = torch.tensor(expected, dtype=torch.float64)
    return torch.allclose(found.double(), expected, rtol=relative, atol=relative)


def _scored(case, dtype=torch.float64, weights="pre"):
    """The trained network and the scores of a case: NNI trains as many steps as its protocol says and counts the first
    of them."""
    model = golden.net(case["net"], dtype)
    settings = {"activation": case.get("activation", "relu"), "taylor_weights": weights}
    known = presets.words(CRITERIA[case["pruner"]])["settings"]
    own = {name: value for name, value in settings.items() if name in known}
    scoring = presets.scoring(CRITERIA[case["pruner"]], case.get("batches_counted", 1), **own)
    steps = [golden.batch(case["net"], number, dtype) for number in range(case.get("training_steps", 0))]
    subject = Subject(model, follow(model).convolutions(), steps, RECIPE)
    scores = score(replace(subject, batches=steps[: scoring.batches]), scoring)
    if scoring.batches:
        train(subject)
    return model.eval(), scores


def _l1(model, names):
    return l1(Subject(model, names, [], RECIPE))


def _masks(case, model, scores):
    mode = {"normal": "independent", "dependency_aware": "dependency_aware", "dep": "dependency_aware"}[case["mode"]]
    return choose(follow(model), scores, dict.fromkeys(scores, case["sparsity"]), mode)


def _kept(masks, name, filters):
    return masks[name].nonzero().flatten().tolist() if name in masks else list(range(filters))


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_the_networks_are_the_golden_ones(name):
    model, expected = golden.net(name), GOLDEN["nets"][name]
    with torch.no_grad():
        assert _near(model(golden.batch(name, 0)[0]), expected["dense_eval_logits"])
    assert count(model, size=16) == (expected["params"], expected["macs"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scores_masks_shapes_and_logits_are_nnis(case):
    model, scores = _scored(case)
    for layer, expected in case["scores"].items():
        assert _near(scores[layer], expected), layer
    masks = _masks(case, model, scores)
    for layer, expected in case["kept"].items():
        assert _kept(masks, layer, len(scores[layer])) == expected, layer
    images = golden.batch(case["net"], 0)[0]
    masked = copy.deepcopy(model)
    zero(masked, masks)
    smaller = shrink(model, masks)
    expected = case["shrunk"]
    shapes = {name: list(t.shape) for name, t in smaller.state_dict().items() if "num_batches" not in name}
    assert shapes == expected["shapes"]
    assert count(smaller, size=16) == (expected["params"], expected["macs"])
    with torch.no_grad():
        assert _near(smaller(images), expected["logits"])
        assert _near(masked(images)[0], case["masked_not_shrunk_logits_row0"])
        hold(model, masks)
        assert _near(model(images)[0], case["masked_not_shrunk_logits_row0"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_in_float32_the_same_filters_are_kept(case):
    model, scores = _scored(case, torch.float32)
    masks = _masks(case, model, scores)
    for layer, expected in case["scores"].items():
        assert _near(scores[layer], expected, 1e-5), layer
        assert _kept(masks, layer, len(expected)) == case["kept"][layer]
    with torch.no_grad():
        logits = shrink(model, masks)(golden.batch(case["net"], 0, torch.float32)[0])
    assert _near(logits, case["shrunk"]["logits"], 1e-5)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c["pruner"] == "taylor"], ids=lambda case: case["id"])
def test_taylor_with_the_weights_after_the_step_is_nni_2_3(case):
    model, scores = _scored(case, weights="post")
    old = case["nni_2.3"]
    for layer, expected in ({} if old["scores"] == "same" else old["scores"]).items():
        assert _near(scores[layer], expected), layer
    masks = _masks(case, model, scores)
    for layer, expected in ({} if old["kept"] == "same" else old["kept"]).items():
        assert _kept(masks, layer, len(scores[layer])) == expected, layer


def test_uneven_sparsities_in_a_group_take_the_smallest():
    model = golden.net("residual")
    expected = GOLDEN["residual_l1_dependency_aware_uneven"]["mixed"]["nni_2_10_1"]
    channels = follow(model)
    scores = _l1(model, channels.convolutions())
    sparsity = {**dict.fromkeys(scores, 0.5), "block1.conv2": 0.25}
    masks = choose(channels, scores, sparsity, "dependency_aware")
    assert {name: _kept(masks, name, len(scores[name])) for name in scores} == expected["kept"]
    with torch.no_grad():
        assert _near(shrink(model, masks)(golden.batch("residual", 0)[0]), expected["logits"])


def test_a_group_with_a_member_left_out_is_not_masked_at_all():
    """Unlike NNI, which masks the others on their own scores and then restores their filters, dead."""
    model = golden.net("residual")
    expected = GOLDEN["residual_l1_dependency_aware_uneven"]["excluded"]["nni_2_10_1"]
    channels = follow(model)
    names = [name for name in channels.convolutions() if name != "block1.conv2"]
    scores = _l1(model, names)
    masks = choose(channels, scores, dict.fromkeys(names, 0.5), "dependency_aware")
    assert "conv1" not in masks
    assert {n: _kept(masks, n, 0) for n in masks} == {n: k for n, k in expected["kept"].items() if n != "conv1"}
    own = shrink(model, masks)
    assert count(own, size=16)[0] == expected["params"]
    nni_masks = {
        n: torch.zeros(len(scores[n]), dtype=torch.bool).index_fill(0, torch.tensor(k), True)
        for n, k in expected["kept"].items()
    }
    with torch.no_grad():
        images = golden.batch("residual", 0)[0]
        assert _near(shrink(model, nni_masks)(images), expected["logits"]), "given NNI's masks, NNI's network"
        assert not _near(own(images), expected["logits"])


@pytest.mark.parametrize("case", GOLDEN["ties_l1_sparsity_0.5"], ids=lambda case: str(case["filter_scores"]))
def test_exactly_k_go_where_scores_tie(case):
    scores = torch.tensor(case["filter_scores"], dtype=torch.float64)
    kept = lowest_removed(scores, int(0.5 * len(scores))).nonzero().flatten().tolist()
    assert len(kept) == len(case["kept_2.10.1"])
    assert sorted(scores[kept]) == sorted(scores[case["kept_2.10.1"]])
    # of equals NNI removes any; here the first ones go
    assert kept == {(4, 2, 2, 2, 3, 1): [0, 3, 4]}.get(tuple(case["filter_scores"]), case["kept_2.10.1"])


@pytest.mark.parametrize("case", GOLDEN["tiny_layers_l1_sparsity_0.3"], ids=lambda case: str(case["filters"]))
def test_a_layer_too_small_for_its_share_is_left_alone(case):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, case["filters"], 1), torch.nn.Flatten(), torch.nn.Linear(case["filters"], 2)
    )
    masks = choose(follow(model), {"0": torch.arange(float(case["filters"]))}, {"0": 0.3})
    assert _kept(masks, "0", case["filters"]) == case["kept"]


@pytest.mark.parametrize(("share", "count"), [(0.29, 28), (0.57, 56), (0.5, 50), (0.999, 99)])
def test_the_count_is_cut_in_binary_floating_point(share, count):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 100, 1), torch.nn.Flatten(), torch.nn.Linear(100, 2))
    masks = choose(follow(model), {"0": torch.rand(100)}, {"0": share})
    assert (~masks["0"]).sum() == count


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN["full_size"]["cases"], ids=lambda case: f"{case['net']}-{case['mode']}")
def test_full_size_networks_are_nnis(case):
    builder = {"VGG16": vgg.vgg16, "ResNet18": resnet.resnet18}[case["net"]]
    model = builder(classes=100).double().eval()
    base = GOLDEN["full_size"]["states"][case["net"]]["base"]
    model.load_state_dict(golden.full_size_state(model, base))
    channels = follow(model)
    scores = _l1(model, channels.convolutions())
    masks = _masks(case, model, scores)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == case["mask_kept_counts"]
    first = channels.convolutions()[0]
    assert _kept(masks, first, 0) == case["kept_first_conv"]
    smaller = shrink(model, masks)
    assert {name: smaller.get_submodule(name).out_channels for name in masks} == case["out_channels"]
    assert count(smaller) == (case["params"], case["macs"])
    images = torch.from_numpy(golden_inputs.tensor(base + 500, [2, 3, 32, 32], -1, 2))
    with torch.no_grad():
        assert _near(smaller(images)[0, :10], case["logits_row0_first10"], 1e-9)
