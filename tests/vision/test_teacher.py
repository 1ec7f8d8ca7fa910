"""Teachers: the same answers, cheaper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.vision.models.nni import vgg as nni_vgg
from benchmark.vision.models.repdistiller import mobilenetv2, resnet, shufflev1, shufflev2, vgg, wrn
from benchmark.vision.teacher import Teacher, folded
from tests.tiny import tiny


def _settled(network: nn.Module) -> nn.Module:
    """In float64, with batch statistics and affine parameters unlike their first values."""
    torch.manual_seed(0)
    network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)
    return network


def _norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (resnet.resnet8, 0),
        (vgg.vgg8, 0),
        (mobilenetv2.mobilenetv2, 0),
        (shufflev1.shufflev1, 0),
        (shufflev2.shufflev2, 0),
        (wrn.wrn_16_1, 7),  # pre-activation: what its other norms see is a sum, or a feature
    ],
)
def test_folding_changes_no_answer_and_leaves_no_norm_that_could_go(build, left):
    network = _settled(build(100))
    teacher = Teacher(network)
    assert _norms(teacher.module) == left
    assert _norms(network) > left, "the network itself stays as it was"
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(teacher.logits(images), network(images), rtol=1e-9, atol=1e-9)
        for preact in (False, True):
            ours, theirs = teacher.features(images, preact), network.features(images, preact)
            for one, other in zip([*ours[0], ours[1]], [*theirs[0], theirs[1]], strict=True):
                assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_unfolded_every_layer_stays_in_its_place_and_answers_to_the_bit():
    network = _settled(resnet.resnet8(100))
    teacher, images = Teacher(network, fold=False), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert _norms(teacher.module) == _norms(network)
    assert not list(teacher.parameters())
    assert teacher.state_dict() == {}
    with torch.no_grad():
        ours, theirs = teacher.features(images), network.features(images)
        assert torch.equal(teacher.logits(images), network(images))
    assert all(torch.equal(one, other) for one, other in zip([*ours[0], ours[1]], [*theirs[0], theirs[1]], strict=True))


def test_a_network_without_a_feature_list_is_folded_too():
    network = _settled(nni_vgg.vgg13(10))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    twin = folded(network)
    assert _norms(twin) == 0
    with torch.no_grad():
        assert torch.allclose(twin(images), network(images))


def test_a_convolution_seen_by_others_stays():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images):
            maps = self.conv(images)
            return self.norm(maps) + maps

    assert _norms(folded(Forked())) == 1


def test_answers_carry_no_gradient_but_may_enter_a_loss_of_the_student():
    network, student = resnet.resnet8(), nn.Conv2d(3, 16, 3, padding=1)
    images = torch.randn(2, 3, 32, 32)
    teacher = Teacher(network)
    maps, logits = teacher.features(images)
    assert not logits.requires_grad
    loss = ((student(images) * maps[0]).sum() * teacher.logits(images)).sum()
    loss.backward()
    assert student.weight.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_dropout_is_off_and_statistics_stand_still():
    network = tiny().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher, images = Teacher(network), torch.randn(4, 3, 32, 32)
    assert torch.equal(teacher.logits(images), teacher.logits(images))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(("remember", "forwards"), [(False, 4), (True, 3)])
def test_students_share_a_forward_only_where_asked_and_only_for_the_same_images(remember, forwards, monkeypatch):
    teacher, calls = Teacher(resnet.resnet8(), remember=remember), []
    real = teacher.module.features
    monkeypatch.setattr(teacher.module, "features", lambda *given: calls.append(1) or real(*given))
    images = torch.randn(2, 3, 32, 32)
    first = teacher.logits(images)
    assert torch.equal(teacher.logits(images), first)
    images.add_(1)  # the same tensor, other images
    second = teacher.logits(images)
    assert not torch.equal(second, first)
    assert torch.equal(teacher.logits(images.clone()), second)
    assert len(calls) == forwards
