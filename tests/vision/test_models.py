"""The NNI-style networks: sizes of the published table, golden values, and the way between modules and artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmark.plan.stage import Network
from benchmark.plan.task import Model
from benchmark.vision import network
from benchmark.vision.macs import count
from benchmark.vision.models.nni import resnet, vgg
from tests.data import golden_inputs
from tests.pruning.golden import full_size_state
from tests.tiny import tiny

FULL_SIZE = json.loads((Path(__file__).parent.parent / "data" / "pruning_golden.json").read_text())["full_size"]

SIZES = {
    vgg.vgg13: (9_722_916, 228_575_232),
    vgg.vgg16: (15_033_892, 313_509_888),
    vgg.vgg19: (20_344_868, 398_444_544),
    resnet.resnet18: (11_220_132, 555_468_800),
    resnet.resnet34: (21_328_292, 1_159_448_576),
    resnet.resnet50: (23_705_252, 1_298_014_208),
}


@pytest.mark.parametrize(("builder", "size"), SIZES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_parameters_and_macs_are_the_published_ones(builder, size):
    with torch.device("meta"):
        assert count(builder(classes=100)) == size


def test_vgg16_convolutions_bear_the_names_that_nni_lists():
    with torch.device("meta"):
        names = [name for name, m in vgg.vgg16().named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert names == [f"feature.{k}" for k in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)]


def test_initialisation_is_nnis():
    torch.manual_seed(0)
    net = vgg.vgg16()
    assert net.feature[3].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert set(net.feature[1].weight.tolist()) == {0.5}
    assert net.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert net.classifier[3].bias.abs().sum() == 0


@pytest.mark.parametrize(("label", "builder"), [("VGG16", vgg.vgg16), ("ResNet18", resnet.resnet18)])
def test_tensors_are_named_as_in_nni(label, builder):
    with torch.device("meta"):
        assert list(builder(classes=100).state_dict()) == FULL_SIZE["states"][label]["names"]


def test_vgg16_shrunk_by_hand_gives_nnis_logits(recipe):
    """The L1 half of every convolution, sliced here in plain sight, loads through `network.load` and computes what NNI's does."""
    base = FULL_SIZE["states"]["VGG16"]["base"]
    case = next(case for case in FULL_SIZE["cases"] if case["net"] == "VGG16")
    net = vgg.vgg16(classes=100).double()
    state = full_size_state(net, base)
    kept = torch.arange(3)
    for name, out in case["out_channels"].items():
        number = int(name.partition(".")[2])
        weight = state[f"feature.{number}.weight"]
        best = weight.abs().sum((1, 2, 3)).argsort(descending=True)[:out].sort().values
        state[f"feature.{number}.weight"] = weight[best][:, kept]
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"feature.{number + 1}.{field}"] = state[f"feature.{number + 1}.{field}"][best]
        kept = best
    state["classifier.0.weight"] = state["classifier.0.weight"][:, kept]
    shrunk = Network("benchmark.vision.models.nni.vgg:vgg16", {"classes": 100}, state, recipe.mean, recipe.std)
    loaded = network.load(shrunk).double()
    loaded.load_state_dict(state)  # in float64: load() keeps the module's own number format
    images = torch.from_numpy(golden_inputs.tensor(base + 500, [2, 3, 32, 32], -1, 2))
    with torch.no_grad():
        logits = loaded(images)[0, :10]
    assert torch.allclose(logits, torch.tensor(case["logits_row0_first10"], dtype=torch.float64), rtol=1e-9, atol=1e-10)
    assert count(loaded) == (case["params"], case["macs"])


def test_a_network_survives_freezing_and_loading(recipe):
    torch.manual_seed(1)
    net = tiny(classes=7).eval()
    frozen = network.freeze(net, Model(name="tiny", builder="tests.tiny:tiny"), 7, recipe)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.load(frozen)(images), net(images))
    net[0].weight.data.zero_()
    assert frozen.tensors["0.weight"].abs().sum() > 0, "freeze must copy"


def test_a_shrunk_network_loads_with_the_shapes_of_its_tensors(recipe):
    narrow = tiny(classes=7, width=3).eval()
    frozen = network.freeze(narrow, Model(name="tiny", builder="tests.tiny:tiny"), 7, recipe)
    assert "width" not in frozen.kwargs
    loaded = network.load(frozen)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), narrow(images))
    assert (loaded[0].out_channels, loaded[1].num_features, loaded[6].in_features) == (3, 3, 12)
    assert count(loaded) == count(narrow)


def test_tensors_that_do_not_fit_are_refused(recipe):
    frozen = network.freeze(tiny(), Model(name="tiny", builder="tests.tiny:tiny"), 10, recipe)
    tensors = {name: value for name, value in frozen.tensors.items() if name != "6.bias"}
    broken = Network(frozen.builder, frozen.kwargs, tensors, frozen.mean, frozen.std)
    with pytest.raises(ValueError, match=r"do not fit tests.tiny:tiny.*6.bias"):
        network.load(broken)
