"""Fake quantization against torch's and LSQ's own values (quant_golden.json, section `qat`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from methods.quantization.fake import (
    LearnedRange,
    LearnedWeight,
    ObservedRange,
    ObservedWeight,
    QuantizedLayer,
    first_step,
)
from tests.data import golden_inputs as gi

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "quant_golden.json").read_text())["qat"]


def _tensor(entry) -> torch.Tensor:
    return torch.from_numpy(gi.tensor(entry["seed"], entry["shape"], entry["lo"], entry["hi"])).float()


def _upstream(seed, like) -> torch.Tensor:
    return torch.from_numpy(gi.tensor(seed, list(like.shape), -1, 1)).float()


def _same(found, wanted, rel=1e-5):
    values = found.detach().numpy().astype("float64")
    sums, slack = gi.checksum(values), rel * (values.size * wanted["sumsq"]) ** 0.5
    assert sums["sumsq"] == pytest.approx(wanted["sumsq"], rel=rel)
    assert sums["sum"] == pytest.approx(wanted["sum"], abs=slack)
    assert sums["weighted"] == pytest.approx(wanted["weighted"], abs=slack)
    assert values.ravel()[:6] == pytest.approx(wanted["first6"], rel=rel, abs=rel * abs(values).max())


def _ranged(scale) -> ObservedRange:
    """With a range that gives this scale."""
    made = ObservedRange(0.01).eval()
    made.high.fill_(127.5 * scale)
    assert made.scale().item() == pytest.approx(scale, rel=1e-6)
    return made


@pytest.mark.parametrize("case", [case for case in GOLDEN["boundaries"]["cases"] if case["quant_min"] == -128])
def test_an_activation_at_the_bounds_and_its_gradient(case):
    x = (torch.tensor(GOLDEN["boundaries"]["x_over_scale"]) * case["scale"]).requires_grad_()
    y = _ranged(case["scale"])(x)
    y.backward(_upstream(GOLDEN["boundaries"]["grad_seed"], x))
    assert y.tolist() == pytest.approx(case["y"])
    assert x.grad.tolist() == pytest.approx(case["grad_x"], rel=1e-6)


def test_a_weight_a_channel():
    case = GOLDEN["per_channel_-127"]
    weight = _tensor(case["weight"])
    weight[case["weight"]["zero_channels"]] = 0
    weight.requires_grad_()
    own = ObservedWeight()
    assert own.scale(weight).tolist() == pytest.approx(case["scale"], rel=1e-6)
    y = own(weight)
    y.backward(_upstream(case["grad_seed"], weight))
    _same(y, case["y"])
    _same(weight.grad, case["grad_x"])
    assert int((weight.grad == 0).sum()) == case["elements_without_gradient"]


@pytest.mark.parametrize("name", ["lsq_boundaries", "lsq_tensor", "lsq_initial_step"])
def test_a_learned_step_of_an_activation_and_its_gradient_by_torchs_rule(name):
    case = GOLDEN[name]
    x = (torch.tensor(case["x"]) if "x" in case else _tensor(case["tensor"])).requires_grad_()
    if name == "lsq_initial_step":
        assert first_step(x.detach()).item() == pytest.approx(case["scale"], rel=1e-5)
    own = LearnedRange().eval()
    own.step.data.fill_(case["scale"])
    y = own(x)
    y.backward(_upstream(case["grad_seed"], x))
    assert own.step.grad.item() == pytest.approx(case["torch_grad_scale"], rel=1e-4, abs=1e-6)
    if "x" in case:
        assert y.tolist() == pytest.approx(case["y"])
        assert x.grad.tolist() == pytest.approx(case["grad_x"], rel=1e-5)
    else:
        _same(y, case["y"])
        _same(x.grad, case["grad_x"])


def test_learned_steps_of_a_weight_begin_as_lsq_has_them_and_get_its_gradients():
    """The range is -127 to 127 here and -128 to 127 there: no value of this case reaches either end."""
    case = GOLDEN["lsq_per_channel"]
    weight = _tensor(case["tensor"]).requires_grad_()
    own = LearnedWeight(weight)
    assert own.steps.tolist() == pytest.approx(case["scale"], rel=1e-5)
    y = own(weight)
    y.backward(_upstream(case["grad_seed"], weight))
    assert own.steps.grad.tolist() == pytest.approx(case["torch_grad_scale"], rel=1e-4, abs=1e-7)
    _same(y, case["y"])
    _same(weight.grad, case["grad_x"])


@pytest.mark.parametrize("name", ["observers", "observers_positive"])
def test_ranges_move_as_torchs_observer_has_them(name):
    own = ObservedRange(0.01).train()
    for batch, (low, high, scale, zero) in zip(
        GOLDEN[name]["batches"], GOLDEN[name]["observers"]["symmetric_-128_127"], strict=True
    ):
        own(_tensor(batch))
        assert (own.low.item(), own.high.item()) == pytest.approx((low, high), rel=1e-6)
        assert own.scale().item() == pytest.approx(scale, rel=1e-6)
        assert zero == 0
    own.observing = False
    own(1e3 * torch.ones(2))
    assert own.high.item() == pytest.approx(high, rel=1e-6)


@pytest.mark.parametrize("mode", ["bn_training", "bn_frozen"])
def test_a_convolution_folded_with_its_batch_norm(mode):
    case, wanted = GOLDEN["conv_bn_block"], GOLDEN["conv_bn_block"][mode]
    given = {name: _tensor(entry) for name, entry in case["inputs"].items()}
    conv = nn.Conv2d(4, 6, 3, stride=case["stride"], padding=1, bias=False)
    norm = nn.BatchNorm2d(6)
    conv.weight.data, norm.weight.data, norm.bias.data = given["weight"], given["gamma"], given["beta"]
    norm.running_mean, norm.running_var = given["running_mean"].clone(), given["running_var"].clone()
    norm.train(mode == "bn_training")
    own = QuantizedLayer(conv, norm, ObservedWeight())
    assert own.scale().tolist() == pytest.approx(wanted["weight_scale"], rel=1e-6)
    x = given["x"].requires_grad_()
    y = own(x)
    _same(y, wanted["y"])
    # the upstream gradient is the one whose sum over positions is the gradient of beta
    for seed in range(3050, 3062):
        upstream = _upstream(seed, y)
        if upstream.sum((0, 2, 3)).tolist() == pytest.approx(wanted["grad_beta"], rel=1e-4):
            break
    else:
        raise AssertionError("no seed gives the upstream gradient")
    y.backward(upstream)
    _same(x.grad, wanted["grad_x"], rel=2e-5)
    _same(conv.weight.grad, wanted["grad_weight"], rel=2e-5)
    assert norm.weight.grad.tolist() == pytest.approx(wanted["grad_gamma"], rel=1e-4)
    assert norm.running_var.tolist() == pytest.approx(
        wanted["running_var_after"] if mode == "bn_training" else given["running_var"].tolist(), rel=1e-5
    )


def test_a_channel_whose_batch_norm_is_zero_gives_its_bias():
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    norm.weight.data[1] = 0
    norm.bias.data[1] = 0.25
    out = QuantizedLayer(conv, norm, ObservedWeight())(torch.randn(2, 3, 8, 8))
    assert torch.isfinite(out).all()
    assert torch.equal(out[:, 1], torch.full_like(out[:, 1], 0.25))
