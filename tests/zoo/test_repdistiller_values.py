"""Every network has the published size, shapes and, where the golden file has it, values."""

from __future__ import annotations

import pytest
import torch
from repdistiller_zoo import DATA, FAMILIES, GOLDEN, ZOO, build, golden_images, golden_inputs, golden_network, shapes
from torch import nn

PUBLISHED = sorted(set(GOLDEN["models"]) - {"_recipe"})
TOLERANCE = 1e-10  # relative, float64; another order of summation (channels_last) moves the values by up to 6e-13


def conv_linear_macs(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for `images`, from the outputs they really give."""
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        macs += module.weight[0].numel() * output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    network(images)
    for hook in hooks:
        hook.remove()
    return macs


@pytest.fixture(scope="module", params=ZOO)
def published(request):
    """What was published of a network, and the network itself on the meta device."""
    with torch.device("meta"):
        return ZOO[request.param], build(request.param, classes=100)


def test_size_as_published(published):
    facts, network = published
    modules = list(network.modules())
    assert sum(p.numel() for p in network.parameters()) == facts.params
    assert len(list(network.parameters())) == facts.tensors
    assert sum(isinstance(m, nn.Conv2d) for m in modules) == facts.convs
    assert sum(isinstance(m, nn.BatchNorm2d) for m in modules) == facts.norms
    assert all(m.eps == 1e-5 and m.momentum == 0.1 for m in modules if isinstance(m, nn.BatchNorm2d))


def test_macs_as_published(published):
    facts, network = published
    assert conv_linear_macs(network, torch.zeros(1, 3, 32, 32, device="meta")) == facts.macs


def test_feature_shapes_as_published(published):
    facts, network = published
    # the post-activation list is seen by `test_number_of_classes_is_the_callers`, and by value below
    features, logits = network.features(torch.zeros(2, 3, 32, 32, device="meta"), preact=True)
    assert [list(f.shape[1:]) for f in features] == shapes(facts)
    assert all(f.shape[0] == 2 for f in features)
    assert logits.shape == (2, 100)


def test_feature_modules_hold_the_published_parameters(published):
    facts, network = published
    owned = {id(p) for p in network.parameters()}
    trained = [p for module in network.feature_modules() for p in module.parameters()]
    assert sum(p.numel() for p in trained) == facts.feature_params
    assert {id(p) for p in trained} <= owned
    assert len({id(p) for p in trained}) == len(trained)


@pytest.mark.parametrize("name", FAMILIES)
def test_number_of_classes_is_the_callers(name):
    with torch.device("meta"):
        features, logits = build(name, classes=7).features(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert [list(f.shape[1:]) for f in features] == shapes(ZOO[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_agrees_with_golden_file(name):
    facts, golden = ZOO[name], GOLDEN["models"][name]
    assert (facts.params, facts.macs, facts.tensors) == (golden["params"], golden["macs"], golden["param_tensors"])
    assert (facts.convs, facts.norms) == (golden["conv_layers"], golden["bn_layers"])
    assert facts.feature_params == golden["feat_module_params"]
    assert shapes(facts) == golden["feat_shapes"]


def close(actual: float, expected: float, scale: float) -> bool:
    """Sums of signed values cancel, so their rounding is judged against the sum of absolute values, `scale`."""
    return abs(actual - expected) <= TOLERANCE * max(abs(expected), scale)


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_values_as_published(name, preact):
    golden = GOLDEN["models"][name]
    with torch.no_grad():
        features, logits = golden_network(name).features(golden_images(), preact=preact)
    torch.testing.assert_close(logits[0, :5].tolist(), golden["logits_row0_first5"], rtol=TOLERANCE, atol=TOLERANCE)
    assert close(logits.sum().item(), golden["logits_sum"], logits.abs().sum().item())
    assert close(logits.abs().mean().item(), golden["logits_abs_mean"], 0)
    wanted = golden["feats_preact" if preact else "feats"]
    assert len(features) == len(wanted)
    for feature, want in zip(features, wanted, strict=True):
        assert close(feature.sum().item(), want["sum"], feature.abs().sum().item())
        assert close(feature.abs().mean().item(), want["abs_mean"], 0)
        assert close(feature.min().item(), want["min"], want["abs_mean"])


def test_golden_inputs_are_rebuilt_to_the_bit(capsys):
    assert str(DATA / "distillation_golden.json") == golden_inputs.JSON_PATH
    assert golden_inputs.main([]) == 0
    assert " 0 mismatches" in capsys.readouterr().out
