"""What training, pruning and distillation lean on: tracing, memory formats, lasting features, initialisation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from repdistiller_zoo import FAMILIES, build, golden_images, golden_inputs, golden_network
from torch import nn

from benchmark.vision.models.repdistiller.interface import FeatureNetwork
from benchmark.vision.models.repdistiller.layers import channel_shuffle

RESIDUAL = ["resnet8", "ResNet50", "ShuffleV1"]  # networks whose stage maps end in one plain ReLU


@pytest.mark.parametrize("name", FAMILIES)
def test_forward_can_be_traced(name):
    network = build(name).eval()
    traced = torch.fx.symbolic_trace(network)
    images = golden_images(2).float()
    assert isinstance(network, FeatureNetwork)
    with torch.no_grad():
        torch.testing.assert_close(traced(images), network(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV1", "ShuffleV2"])
def test_traced_network_can_be_copied(name):
    traced = torch.fx.symbolic_trace(build(name).eval())
    images = golden_images(1).float()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(traced)(images), traced(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_forward_gives_the_logits_of_features(name):
    network = golden_network(name).eval()
    with torch.no_grad():
        logits = network(golden_images(2))
        features, same = network.features(golden_images(2))
        assert torch.equal(logits, same)
        assert torch.equal(logits, network.features(golden_images(2), preact=True)[1])
    torch.testing.assert_close(F.linear(features[-1], network.classifier.weight, network.classifier.bias), logits)


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same_features_in_channels_last(name, preact):
    network = golden_network(name)
    images = golden_images(2)
    with torch.no_grad():
        plain = network.features(images, preact=preact)
        network = network.to(memory_format=torch.channels_last)
        last = network.features(images.to(memory_format=torch.channels_last), preact=preact)
    for one, other in zip([*plain[0], plain[1]], [*last[0], last[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in last[0] if f.dim() == 4)
    assert all(f.is_contiguous() for f in plain[0])


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_not_changed_in_place(name, preact):
    network = build(name)
    features, logits = network.features(golden_images(2).float(), preact=preact)
    assert all(f._version == 0 for f in features)
    (sum(f.square().mean() for f in features) + logits.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert not any(getattr(module, "inplace", False) for module in network.modules())


@pytest.mark.parametrize("name", RESIDUAL)
def test_stage_maps_are_the_relu_of_their_preactivation(name):
    with torch.no_grad():
        before, _ = golden_network(name).features(golden_images(2), preact=True)
        after, _ = golden_network(name).features(golden_images(2))
    assert all((b < 0).any() and torch.equal(F.relu(b), a) for b, a in zip(before[1:-1], after[1:-1], strict=True))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[-1], after[-1])


def test_shufflev2_preactivation_is_relu_of_its_second_half_and_not_shuffled():
    with torch.no_grad():
        before, _ = golden_network("ShuffleV2").features(golden_images(2), preact=True)
        after, _ = golden_network("ShuffleV2").features(golden_images(2))
    for b, a in zip(before[1:-1], after[1:-1], strict=True):
        passed, branch = b.chunk(2, dim=1)
        assert (passed >= 0).all()
        assert (branch < 0).any()
        assert torch.equal(a[:, 0::2], passed)
        assert torch.equal(a[:, 1::2], F.relu(branch))


@pytest.mark.parametrize(("preact", "calls"), [(False, 1), (True, 2)])
def test_wrn_preactivation_runs_three_norms_twice(preact, calls):
    network = golden_network("wrn_16_2")
    network.features(golden_images(2), preact=preact)
    counts = [int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(counts) == [1] * 10 + [calls] * 3


def test_feature_modules_of_wrn_leave_the_final_norm_out():
    network = golden_network("wrn_16_1").eval()
    for module in network.feature_modules():
        module.train()
    modes = [m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert modes == [True] * 12 + [False]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 5])
def test_channel_shuffle_interleaves_groups(memory_format, size):
    x = torch.arange(2 * 12 * size * size).reshape(2, 12, size, size).to(memory_format=memory_format)
    shuffled = channel_shuffle(x, 3)
    assert torch.equal(shuffled, x[:, [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]])
    assert shuffled.is_contiguous(memory_format=memory_format)


def shufflev1_by_hand(x: torch.Tensor) -> torch.Tensor:
    """ShuffleNet V1 as one loop over functions, written from its description; golden values, batch statistics."""

    def value(kind, *shape):
        return torch.from_numpy(golden_inputs.model_param(kind, list(shape)))

    def conv_bn(x, c_out, kernel, stride, groups):
        weight = value("conv_weight", c_out, x.shape[1] // groups, kernel, kernel)
        y = F.conv2d(x, weight, None, stride, kernel // 2, 1, groups)
        return F.batch_norm(y, None, None, value("bn_weight", c_out), value("bn_bias", c_out), training=True)

    x = conv_bn(x, 24, 1, 1, 1).relu()
    for c_out, units in ((240, 4), (480, 8), (960, 4)):
        for unit in range(units):
            c_in, stride = x.shape[1], 2 if unit == 0 else 1
            branch = c_out - c_in if unit == 0 else c_out
            groups = 1 if c_in == 24 else 3
            y = conv_bn(x, int(branch / 4), 1, 1, groups).relu()
            order = [g * (y.shape[1] // groups) + i for i in range(y.shape[1] // groups) for g in range(groups)]
            y = conv_bn(y[:, order], y.shape[1], 3, stride, y.shape[1]).relu()
            y = conv_bn(y, branch, 1, 1, 3)
            x = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1).relu() if unit == 0 else (x + y).relu()
    return F.linear(x.mean((2, 3)), value("linear_weight", 100, 960), value("linear_bias", 100))


def test_shufflev1_agrees_with_its_description_written_out():
    with torch.no_grad():
        logits = golden_network("ShuffleV1")(golden_images())
        torch.testing.assert_close(logits, shufflev1_by_hand(golden_images()), rtol=1e-9, atol=1e-9)


def expected_std(name: str, conv: nn.Conv2d) -> float:
    if name.startswith("Shuffle"):  # PyTorch's default: uniform within 1 / sqrt(fan in)
        return 1 / math.sqrt(3 * conv.weight[0].numel())
    return math.sqrt(2 / (conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels))


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet50"])
def test_convolutions_start_as_published(name):
    torch.manual_seed(0)
    for module in build(name).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        if isinstance(module, nn.Conv2d):
            assert module.bias is None or (module.bias == 0).all()
            # five standard errors of the deviation of a normal sample, which covers the uniform one
            slack = 5 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected_std(name, module), rel=slack)


@pytest.mark.parametrize(
    ("name", "std", "zero_bias"),
    [
        ("resnet20", 1 / math.sqrt(3 * 64), False),
        ("ResNet50", 1 / math.sqrt(3 * 2048), False),
        ("wrn_16_2", 1 / math.sqrt(3 * 128), True),
        ("vgg8", 0.01, True),
        ("MobileNetV2", 0.01, True),
        ("ShuffleV1", 1 / math.sqrt(3 * 960), False),
        ("ShuffleV2", 1 / math.sqrt(3 * 1024), False),
    ],
)
def test_classifier_starts_as_published(name, std, zero_bias):
    torch.manual_seed(0)
    classifier = build(name).classifier
    assert classifier.weight.std().item() == pytest.approx(std, rel=0.05)
    assert bool((classifier.bias == 0).all()) is zero_bias
