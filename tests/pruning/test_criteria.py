"""The six formulas on a layer of four filters, worked by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from benchmark.plan.task import Recipe
from methods.pruning.criteria.fpgm import fpgm
from methods.pruning.criteria.l1 import l1
from methods.pruning.criteria.l2 import l2
from methods.pruning.criteria.subject import Subject
from methods.pruning.criteria.taylorfo import contribution
from methods.pruning.params import Scoring
from methods.pruning.scores import find, score
from tests.pruning import presets

# four filters of two weights each: a 1 x 1 convolution of two channels
WEIGHT = torch.tensor([[3.0, -4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 3.0]]).view(4, 2, 1, 1)


RECIPE = Recipe(name="toy", epochs=1, batch_size=1, lr=0.1, weight_decay=0, mean=(0.5,) * 3, std=(0.25,) * 3)


def _by_weight(criterion, weight):
    convolution = nn.Conv2d(1, 1, 1)
    convolution.weight.data = weight
    return criterion(Subject(nn.ModuleDict({"only": convolution}), ["only"], [], RECIPE))["only"]


def test_l1():
    assert _by_weight(l1, WEIGHT).tolist() == [7, 1, 0, 4]


def test_l2():
    assert _by_weight(l2, WEIGHT).tolist() == pytest.approx([5, 1, 0, math.sqrt(10)])


def test_fpgm():
    apart = {(0, 1): math.sqrt(20), (0, 2): 5, (0, 3): math.sqrt(53), (1, 2): 1, (1, 3): 3, (2, 3): math.sqrt(10)}
    expected = [sum(d for pair, d in apart.items() if filter_ in pair) for filter_ in range(4)]
    assert _by_weight(fpgm, WEIGHT).tolist() == pytest.approx(expected, rel=1e-6)


def test_fpgm_is_exact_for_many_filters_far_from_the_origin():
    weight = torch.randn(64, 9) * 1e-3 + 1
    exact = torch.cdist(weight.double(), weight.double()).sum(1)
    assert torch.allclose(_by_weight(fpgm, weight).double(), exact, rtol=1e-4)


def test_taylor_squares_each_element_before_summing():
    gradient = torch.tensor([[1.0, 1.0], [2.0, 9.0], [5.0, 5.0], [1.0, -1.0]]).view(4, 2, 1, 1)
    assert contribution(WEIGHT, gradient).tolist() == [9 + 16, 4, 0, 1 + 9]


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
BATCH = (PIXELS.repeat(2, 1, 1, 1), torch.tensor([0, 3]), torch.arange(2))


def _score(name, batches=1, batch=BATCH, **settings):
    return score(Subject(Toy(), ["conv"], [batch] * batches, RECIPE), presets.scoring(name, batches, **settings))[
        "conv"
    ]


def test_apoz_is_the_share_of_raw_outputs_above_zero():
    assert _score("apoz").tolist() == [0.5, 0.5, 0, 0.75]


def test_activation_mean_is_that_of_relu_on_raw_outputs():
    assert _score("activation_mean").tolist() == [7 / 4, 3 / 4, 0, 9 / 4]


def test_relu6_cuts_at_six():
    batch = (2 * PIXELS, torch.tensor([0]), torch.arange(1))
    scores = _score("activation_mean", batch=batch, activation="relu6")
    assert scores.tolist() == [(6 + 2) / 4, (2 + 4) / 4, 0, (6 + 4 + 6) / 4]


def test_after_the_batch_norm_activations_are_others():
    centred = RAW - RAW.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    mean = normal.clamp(min=0).mean(1)
    found = _score("activation_mean", activation_site="post_bn")
    assert found.tolist() == pytest.approx(mean.tolist(), abs=1e-6)
    share = (centred > 0).double().mean(1)
    assert _score("apoz", activation_site="post_bn").tolist() == share.tolist()


def test_taylorfo_multiplies_before_or_after_the_step():
    before = Toy()
    logits = before(PIXELS.repeat(2, 1, 1, 1))
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    gradient = before.conv.weight.grad
    pre = (WEIGHT * gradient).square().sum((1, 2, 3))
    post = ((WEIGHT - 0.1 * gradient) * gradient).square().sum((1, 2, 3))
    assert not torch.allclose(pre, post)
    assert torch.allclose(_score("taylorfo", taylor_weights="pre"), pre)
    assert torch.allclose(_score("taylorfo", taylor_weights="post"), post)


def test_taylorfo_names_a_convolution_without_a_gradient():
    frozen = Toy()
    frozen.conv.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="conv has no gradient"):
        score(Subject(frozen, ["conv"], [BATCH], RECIPE), presets.scoring("taylorfo"))


def test_a_later_step_meets_changed_weights():
    one, two = (_score("activation_mean", batches=batches) for batches in (1, 2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("name", presets.NAMES)
def test_scoring_leaves_the_network_as_it_is(name):
    model = Toy()
    before = copy.deepcopy(model.state_dict())
    steps = [BATCH] * 3 if name in presets.LOOKING else []
    scores = score(Subject(model, ["conv"], steps, RECIPE), presets.scoring(name))
    assert not scores["conv"].requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.conv._forward_hooks
    assert model.conv.weight.grad is None


@pytest.mark.parametrize("name", presets.LOOKING)
def test_criteria_that_look_at_data_train_what_they_are_given(name):
    """The copy is the caller's: `score` makes it, the criterion trains."""
    model, criterion = Toy(), find(presets.scoring(name))
    criterion.function(Subject(model, ["conv"], [BATCH], RECIPE), **criterion.settings)
    assert not torch.equal(model.conv.weight, WEIGHT)
    assert not model.conv._forward_hooks


# --- what a criterion may not do ---------------------------------------------------------------------------------


def short(subject):
    return {name: torch.zeros(1) for name in subject.layers}


def absent(subject):
    return {}


def not_a_number(subject):
    return {name: weight.flatten(1).sum(1) * float("nan") for name, weight in subject.weights().items()}


def needy(subject, share: float):
    return l1(subject)


def broken(subject):
    raise KeyError("conv9")


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        ({"criterion": f"{__name__}:short"}, "must return one number for each of the 4 filters of 0"),
        ({"criterion": f"{__name__}:absent"}, "must return one number for each of the 4 filters of 0"),
        ({"criterion": f"{__name__}:not_a_number"}, "that is not a finite number"),
        ({"criterion": f"{__name__}:needy"}, "needs a value for share"),
        ({"criterion": f"{__name__}:needy", "settings": {"share": "half"}}, "share: .*number.*'half'"),
        ({"criterion": f"{__name__}:broken"}, "fails on a small network: KeyError: 'conv9'"),
        ({"criterion": f"{__name__}:nobody"}, "has no function 'nobody'"),
        ({"criterion": "nobodys.module:l1"}, "cannot be imported .*is its folder on PYTHONPATH"),
        ({"criterion": "methods.pruning.criteria.l1:l1", "settings": {"activation": "relu"}}, "no setting activation"),
        ({"criterion": "methods.pruning.criteria.apoz:apoz", "batches": 1, "settings": {"activation": "tanh"}}, "'tanh'"),
        ({"criterion": "methods.pruning.criteria.apoz:apoz"}, "must say looks_at_data"),
        ({"criterion": "methods.pruning.criteria.taylorfo:taylorfo"}, "must say looks_at_data"),
    ],
)  # fmt: skip  # a line a case reads best
def test_what_is_wrong_with_a_criterion_shows_before_any_training(task, scoring, words):
    wanted = Scoring(**scoring)
    method = presets.pruning(
        "l1", looks_at_data=wanted.batches > 0, criterion=wanted.criterion, settings=wanted.settings
    )
    with pytest.raises(ValueError, match=words):
        method.check(task)


def test_trying_a_criterion_out_draws_nothing_from_the_generator(task):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    presets.pruning("taylorfo").check(task)
    assert torch.equal(torch.rand(3), expected)
