"""The six formulas on a layer of four filters, worked by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from benchmark.plan.task import Recipe
from methods.pruning.criteria import collect, fpgm, l1, l2, taylor
from methods.pruning.params import Scoring

# four filters of two weights each: a 1 x 1 convolution of two channels
WEIGHT = torch.tensor([[3.0, -4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 3.0]]).view(4, 2, 1, 1)


def test_l1():
    assert l1(WEIGHT).tolist() == [7, 1, 0, 4]


def test_l2():
    assert l2(WEIGHT).tolist() == pytest.approx([5, 1, 0, math.sqrt(10)])


def test_fpgm():
    apart = {(0, 1): math.sqrt(20), (0, 2): 5, (0, 3): math.sqrt(53), (1, 2): 1, (1, 3): 3, (2, 3): math.sqrt(10)}
    expected = [sum(d for pair, d in apart.items() if filter_ in pair) for filter_ in range(4)]
    assert fpgm(WEIGHT).tolist() == pytest.approx(expected, rel=1e-6)


def test_fpgm_is_exact_for_many_filters_far_from_the_origin():
    weight = torch.randn(64, 9) * 1e-3 + 1
    exact = torch.cdist(weight.double(), weight.double()).sum(1)
    assert torch.allclose(fpgm(weight).double(), exact, rtol=1e-4)


def test_taylor_squares_each_element_before_summing():
    gradient = torch.tensor([[1.0, 1.0], [2.0, 9.0], [5.0, 5.0], [1.0, -1.0]]).view(4, 2, 1, 1)
    assert taylor(WEIGHT, gradient).tolist() == [9 + 16, 4, 0, 1 + 9]


class Toy(nn.Module):
    """The four filters, a batch norm, and logits that are their means: every number below can be worked by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv.weight.data = WEIGHT.clone()

    def forward(self, x):
        return self.pool(torch.relu(self.bn(self.conv(x)))).flatten(1)


# one image of four pixels, [channel][pixel]; the filters give [3a - 4b, a, 0, a + 3b] at each
PIXELS = torch.tensor([[1.0, 2.0, -1.0, 0.0], [1.0, 0.0, -1.0, 1.0]]).view(1, 2, 2, 2)
RAW = torch.tensor([[-1.0, 6.0, 1.0, -4.0], [1.0, 2.0, -1.0, 0.0], [0.0] * 4, [4.0, 2.0, -4.0, 3.0]])
RECIPE = Recipe(name="toy", epochs=1, batch_size=1, lr=0.1, weight_decay=0, mean=(0.5,) * 3, std=(0.25,) * 3)


def _collect(batches=1, steps=1, **settings):
    model = Toy()
    batch = (PIXELS.repeat(2, 1, 1, 1), torch.tensor([0, 3]), torch.arange(2))
    return collect(model, ["conv"], [batch] * steps, RECIPE, Scoring(batches=batches, **settings))["conv"], model


def test_apoz_is_the_share_of_raw_outputs_above_zero():
    assert _collect(criterion="apoz")[0].tolist() == [0.5, 0.5, 0, 0.75]


def test_activation_mean_is_that_of_relu_on_raw_outputs():
    assert _collect(criterion="activation_mean")[0].tolist() == [7 / 4, 3 / 4, 0, 9 / 4]


def test_relu6_cuts_at_six():
    model = Toy()
    batch = (2 * PIXELS, torch.tensor([0]), torch.arange(1))
    scores = collect(model, ["conv"], [batch], RECIPE, Scoring(criterion="activation_mean", activation="relu6"))
    assert scores["conv"].tolist() == [(6 + 2) / 4, (2 + 4) / 4, 0, (6 + 4 + 6) / 4]


def test_after_the_batch_norm_activations_are_others():
    centred = RAW - RAW.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    mean = normal.clamp(min=0).mean(1)
    assert _collect(criterion="activation_mean", activation_site="post_bn")[0].tolist() == pytest.approx(
        mean.tolist(), abs=1e-6
    )
    share = (centred > 0).double().mean(1)
    assert _collect(criterion="apoz", activation_site="post_bn")[0].tolist() == share.tolist()


def test_taylorfo_multiplies_before_or_after_the_step():
    before = Toy()
    logits = before(PIXELS.repeat(2, 1, 1, 1))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    gradient = before.conv.weight.grad
    pre = (WEIGHT * gradient).square().sum((1, 2, 3))
    post = ((WEIGHT - 0.1 * gradient) * gradient).square().sum((1, 2, 3))
    assert not torch.allclose(pre, post)
    assert torch.allclose(_collect(criterion="taylorfo", taylor_weights="pre")[0], pre)
    assert torch.allclose(_collect(criterion="taylorfo", taylor_weights="post")[0], post)


def test_steps_beyond_the_counted_batches_train_but_do_not_count():
    one, _ = _collect(criterion="activation_mean")
    three, model = _collect(criterion="activation_mean", steps=3)
    two, _ = _collect(criterion="activation_mean", steps=2, batches=2)
    assert torch.equal(one, three)
    assert not torch.equal(one, two), "the second batch meets changed weights"
    assert not torch.equal(model.conv.weight, WEIGHT)
    assert not model.conv._forward_hooks


def test_scores_leave_no_trace_on_a_copy():
    model = Toy()
    state = copy.deepcopy(model.state_dict())
    collect(
        copy.deepcopy(model),
        ["conv"],
        [(PIXELS, torch.tensor([0]), torch.arange(1))],
        RECIPE,
        Scoring(criterion="apoz"),
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
