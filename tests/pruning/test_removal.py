"""Channels and removal: dependency groups, published sizes, and shrunk networks that compute what masked ones do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmark.plan.config import CONFIGS, names
from benchmark.plan.stage import Network
from benchmark.vision import network
from benchmark.vision.macs import count
from benchmark.vision.models.nni import resnet, vgg
from methods.pruning.channels import Channels
from methods.pruning.criteria.l1 import l1
from methods.pruning.criteria.subject import Subject
from methods.pruning.masks import choose, chosen_layers, hold, release
from methods.pruning.removal import shrink, surviving, zero
from methods.pruning.trace import PASSING, follow
from tests.pruning.golden import RECIPE
from tests.pruning.nets import opaque


def _stage(name, width):
    return [f"layer{name}.0.shortcut.0", *(f"layer{name}.{block}.conv{width[1]}" for block in range(width[0]))]


GROUPS = {
    vgg.vgg16: [],
    resnet.resnet18: [["conv1", "layer1.0.conv2", "layer1.1.conv2"], *(_stage(s, (2, 2)) for s in (2, 3, 4))],
    resnet.resnet34: [
        ["conv1", *(f"layer1.{block}.conv2" for block in range(3))], _stage(2, (4, 2)), _stage(3, (6, 2)), _stage(4, (3, 2)),
    ],
    resnet.resnet50: [_stage(1, (3, 3)), _stage(2, (4, 3)), _stage(3, (6, 3)), _stage(4, (3, 3))],
}  # fmt: skip  # a group a line


@pytest.mark.parametrize(("builder", "expected"), GROUPS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_dependency_groups_are_the_listed_ones(builder, expected):
    with torch.device("meta"):
        found = [group for group in follow(builder()).groups() if len(group) > 1]
    assert [sorted(group) for group in found] == [sorted(group) for group in expected]


def _halved(builder, pick=None, mode="dependency_aware"):
    with torch.device("meta"):
        model = builder(classes=100)
    channels = follow(model)
    layers = [name for name in channels.convolutions() if pick is None or pick(name, channels.layers[name].module)]
    generator = torch.Generator().manual_seed(1)
    scores = {name: torch.rand(len(channels.layers[name].gives), generator=generator) for name in layers}
    return count(shrink(model, choose(channels, scores, dict.fromkeys(layers, 0.5), mode)))


def _set(builder, layers):
    with torch.device("meta"):
        chosen = chosen_layers(follow(builder()), layers)
    return lambda name, _: name in chosen


def _wide_or_first(name, module):
    return name == "feature.0" or module.out_channels == 512


def _inner(name, _):
    return name.endswith(".conv1")


def _inner_of_bottleneck(name, _):
    return name.endswith((".conv1", ".conv2"))


SIZES = {
    "vgg16 nni": (vgg.vgg16, _set(vgg.vgg16, "nni"), 6_164_612, 208_816_128),
    "vgg16 nni_conv13": (vgg.vgg16, _set(vgg.vgg16, "nni_conv13"), 5_443_204, 206_325_760),
    "vgg16 all": (vgg.vgg16, None, 3_866_180, 78_923_776),
    "vgg19 all": (vgg.vgg19, None, 5_194_564, 100_157_440),
    "vgg19 wide": (vgg.vgg19, _wide_or_first, 7_214_212, 255_870_976),
    "resnet18 all": (resnet.resnet18, None, 2_820_740, 139_322_368),
    "resnet34 all": (resnet.resnet34, None, 5_349_636, 290_317_312),
    "resnet50 all": (resnet.resnet50, None, 5_991_300, 324_997_120),
    "resnet18 inner": (resnet.resnet18, _inner, 5_725_476, 281_790_464),
    "resnet34 inner": (resnet.resnet34, _inner, 10_781_412, 583_780_352),
    "resnet18 nni_resnet": (resnet.resnet18, _set(resnet.resnet18, "nni_resnet"), 2_916_068, 220_947_456),
    "resnet50 inner": (resnet.resnet50, _inner_of_bottleneck, 10_530_084, 557_719_552),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", SIZES.values(), ids=SIZES)
def test_half_of_the_filters_leaves_the_published_sizes(row):
    builder, pick, parameters, macs = row
    assert _halved(builder, pick) == (parameters, macs)


def test_independent_masks_keep_about_what_chance_keeps():
    parameters, macs = _halved(resnet.resnet18, mode="independent")
    assert parameters == pytest.approx(4.99e6, rel=0.02)
    assert macs == pytest.approx(245.9e6, rel=0.02)


def _random(model, seed=0):
    """Weights and batch norm statistics as of a trained network, so that nothing cancels."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for field, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
                ("running_mean", -0.2, 0.2),
                ("running_var", 0.5, 1.5),
            ):
                tensor = getattr(module, field)
                tensor.data = low + (high - low) * torch.rand(tensor.shape, generator=generator)
    return model.eval()


def _silenced(model, masks):
    """The masked network, with the batch norm scale and shift of the physically removed channels at zero."""
    silent = copy.deepcopy(model)
    zero(silent, masks)
    channels = follow(silent)
    stay = surviving(channels, masks)
    for layer in channels.layers.values():
        gone = torch.tensor([channel not in stay for channel in layer.gives])
        if isinstance(layer.module, nn.BatchNorm2d):
            layer.module.weight.data[gone] = 0
            layer.module.bias.data[gone] = 0
        elif isinstance(layer.module, nn.Conv2d):
            layer.module.weight.data[gone] = 0
    return silent


def _masks(model, mode, sparsity=0.5, layers="all"):
    channels = follow(model)
    chosen = chosen_layers(channels, layers)
    scores = l1(Subject(model, chosen, [], RECIPE))
    return choose(channels, scores, dict.fromkeys(chosen, sparsity), mode)


@pytest.mark.parametrize("mode", ["independent", "dependency_aware"])
@pytest.mark.parametrize(
    "builder",
    [vgg.vgg16, resnet.resnet18, pytest.param(resnet.resnet50, marks=pytest.mark.slow)],
    ids=lambda b: b.__name__,
)
def test_a_shrunk_network_computes_what_the_silenced_masked_one_does(builder, mode):
    model = _random(builder(classes=10))
    masks = _masks(model, mode)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shrunk, masked = shrink(model, masks)(images), _silenced(model, masks)(images)
        dense = model(images)
    assert (shrunk - masked).abs().max() < 1e-4
    assert (shrunk - dense).abs().max() > 0.1, "nothing was removed"


ZOO = [
    f"repdistiller/{n}"
    for n in ("MobileNetV2", "ShuffleV1", "ShuffleV2", "resnet20", "resnet8x4", "wrn_16_2", "vgg8", "ResNet50")
]


def _zoo(name, classes=10):
    import yaml

    words = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    return words["builder"], {**words.get("kwargs", {}), "classes": classes}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["independent", "dependency_aware"])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_shrinks_and_computes_the_same(name, mode):
    """Depthwise and grouped convolutions, concatenations and shuffles included."""
    builder, kwargs = _zoo(name)
    model = _random(network.build(builder, kwargs))
    masks = _masks(model, mode, sparsity=0.5)
    smaller = shrink(model, masks)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shrunk, masked = smaller(images), _silenced(model, masks)(images)
    assert (shrunk - masked).abs().max() < 1e-4 * max(1.0, masked.abs().max())
    assert count(smaller)[0] < count(model)[0]
    assert count(smaller)[1] < count(model)[1]
    # as an artifact: shapes come from the tensors, without methods or nni
    loaded = network.load(Network(builder, kwargs, smaller.state_dict(), (0.5,) * 3, (0.25,) * 3))
    with torch.no_grad():
        assert torch.equal(loaded(images), shrunk)


@pytest.mark.slow
def test_every_network_of_the_zoo_can_be_followed():
    for name in names("model"):
        builder, kwargs = _zoo(name)
        with torch.device("meta"):
            channels = follow(network.build(builder, kwargs))
        assert chosen_layers(channels, "all"), name


def test_what_a_shuffle_moves_is_locked_and_the_rest_is_not():
    builder, kwargs = _zoo("repdistiller/ShuffleV2")
    with torch.device("meta"):
        channels = follow(network.build(builder, kwargs))
    locked = [name for name in channels.convolutions() if not channels.removable(name)]
    assert "conv2" not in locked
    assert "conv1" not in locked
    assert "stages.0.0.right.0" not in locked
    assert "stages.0.0.right.5" in locked
    assert "stages.0.0.left.2" in locked


def test_blocks_of_a_grouped_convolution_keep_equally_many():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 1024, 2)
    )
    masks = {"0": torch.tensor([True, True, True, True, False, False])}
    channels = follow(model)
    stay = surviving(channels, masks)
    assert [c in stay for c in channels.layers["0"].gives] == [True] * 6, (
        "the first block keeps three, so must the second"
    )
    masks = {
        "0": torch.tensor([True, False, True, False, True, True]),
        "2": torch.tensor([True, True, False, True, False, False]),
    }
    smaller = shrink(model, masks)
    assert (smaller[0].out_channels, smaller[2].in_channels, smaller[2].groups) == (4, 4, 2)
    assert smaller[2].out_channels == 4, "one of the second block comes back"
    images = torch.randn(2, 3, 32, 32)
    zero(model, masks)
    alive = torch.tensor([True, False, True, False, True, True])
    with torch.no_grad():
        hidden = torch.relu(model[0](images)) * alive.view(1, -1, 1, 1)
        out = torch.relu(model[2](hidden))
        stays = [c in surviving(channels, masks) for c in channels.layers["2"].gives]
        expected = model[5]((out * torch.tensor(stays).view(1, -1, 1, 1)).flatten(1))
        assert torch.allclose(smaller(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"0": torch.zeros(6, dtype=torch.bool)}, "removes all of its 6 filters"),
        ({"0": torch.ones(5, dtype=torch.bool)}, "has 5 entries for 6 filters"),
        ({"7": torch.ones(6, dtype=torch.bool)}, "no such convolution: 7"),
    ],
)
def test_masks_that_make_no_sense_are_refused(masks, words):
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(), nn.Linear(6 * 1024, 2))
    with pytest.raises(ValueError, match=words):
        shrink(model, masks)


class Odd(nn.Module):
    """Two convolutions and whatever is done with what they give."""

    def __init__(self, tail, features=8, colours=3) -> None:
        super().__init__()
        self.a = nn.Conv2d(colours, 8, 3, padding=1)
        self.b = nn.Conv2d(colours, 8, 3, padding=1, stride=2)
        self.c = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm1d(8)
        self.fc = nn.Linear(features, 2)
        self.tail = tail

    def forward(self, x):
        return self.tail(self, x, torch.relu(self.a(x)), torch.relu(self.b(x)))


def _branch(net, _x, a, _b):
    return net.fc((a * 2 if a.sum() > 0 else a).mean((2, 3)))


REFUSED = {
    "a is called twice": lambda net, x, _a, _b: net.fc((net.a(x) + net.a(x)).mean((2, 3))),
    "nothing is known of softmax": lambda net, _x, a, _b: net.fc(torch.softmax(a, 1).mean((2, 3))),
    "nothing is known of the method exp": lambda net, _x, a, _b: net.fc(a.exp().mean((2, 3))),
    "cannot be traced": _branch,
    "it takes the part": lambda net, _x, a, b: net.fc(a[:, :4].mean((2, 3)) + b[:, 4:].mean((2, 3))),
    "a mean over the axes .1.": lambda net, _x, a, _b: net.fc((a * a.mean(1, keepdim=True)).mean((2, 3))),
    "a mean over the axes .0, 1.": lambda net, _x, a, _b: net.fc(a.mean((2, 3)) * a.mean((2, 3)).mean()),
    "it joins 8 and 8": lambda net, _x, a, _b: net.fc((a * a.mean((2, 3))).mean((2, 3))),
    "it flattens from axis 0 to -1": lambda net, _x, a, _b: net.fc(torch.flatten(a)),
    "it flattens from axis 1 to 2": lambda net, _x, a, _b: net.fc(a.flatten(1, 2).mean(2)),
    "it joins features": lambda net, _x, a, b: net.fc(torch.cat([a.flatten(1), b.flatten(1)], 1)),
    "it joins along axis 2": lambda net, _x, a, b: net.fc(torch.cat([a, b], 2).mean((2, 3))),
    "one of the tensors that it joins has none": lambda net, _x, a, _b: net.fc(torch.cat(a.chunk(2, 1), 1).mean((2, 3))),
    "norm takes 8 channels, but is given 16": lambda net, _x, a, _b: net.fc(net.norm(torch.cat([a, a], 1).mean((2, 3)))),
    "fc takes 8 features, which is not a multiple of 16": lambda net, _x, a, _b: net.fc(torch.cat([a, a], 1).mean((2, 3))),
    "fc takes 8 features, which is not a multiple of 8": lambda net, _x, a, _b: net.fc(a).mean((2, 3)),
    "c takes 3 channels, but is given 8": lambda net, _x, a, _b: net.fc(net.c(a).mean((2, 3))),
    "it calculates with a length": lambda net, _x, a, _b: net.fc((a * a.shape[2]).mean((2, 3))),
    "number of channels becomes a value": lambda net, _x, a, _b: net.fc((a * a.shape[1]).mean((2, 3))),
    "it calculates with a length.*": lambda net, _x, a, _b: net.fc(a.reshape(a.size(0) * 2, -1)),
    "only x.view.x.size.0., -1. is known": lambda net, _x, a, _b: net.fc(a.view(-1, 8)),
}  # fmt: skip  # a network a line


@pytest.mark.parametrize(("words", "tail"), REFUSED.items(), ids=REFUSED)
def test_a_network_that_cannot_be_followed_is_refused(words, tail):
    with pytest.raises(ValueError, match=words):
        follow(Odd(tail))


def test_what_is_unknown_is_told_with_what_is_known():
    with pytest.raises(ValueError, match=r"nothing is known of Softmax \(known layers: .*GELU.*ReLU"):
        follow(opaque())


def test_every_layer_that_is_passed_keeps_an_empty_channel_empty():
    """Else a removed channel would have gone on giving a number."""
    for kind in PASSING:
        layer = kind(2) if kind in (nn.MaxPool2d, nn.AvgPool2d) else kind()
        assert not layer.eval()(torch.zeros(1, 1, 2, 2)).any(), kind


def _pooled(tensor):
    return nn.functional.adaptive_avg_pool2d(tensor, 1).flatten(1)


FOLLOWED = {
    "a spatial slice": (lambda net, _x, a, b: net.fc((a[:, :, ::2, ::2] + b).mean((2, 3))), 8),
    "a pixel": (lambda net, _x, a, _b: net.fc(a[:, :, 0, 0]), 8),
    "a channel twice": (lambda net, _x, a, _b: net.fc(torch.cat([a, a], 1).mean((2, 3))), 16),
    "a shape": (lambda net, _x, a, _b: net.fc(a[:, :, :2, :2].reshape(a.shape[0], -1)), 32),
    "a size": (lambda net, _x, a, _b: net.fc(a[:, :, :2, :2].reshape(a.size(0), -1)), 32),
    "spatial sizes": (lambda net, _x, a, _b: net.fc(nn.functional.avg_pool2d(a, a.shape[2:]).flatten(1)), 8),
    "one mean after the other": (lambda net, _x, a, _b: net.fc(a.mean(3).mean(2)), 8),
    "the last axis twice": (lambda net, _x, a, _b: net.fc(a.mean(-1).mean(-1)), 8),
    "an axis by numpy's name": (lambda net, _x, a, _b: net.fc(a.mean(axis=(2, 3))), 8),
    "flat maps": (lambda net, _x, a, b: net.fc(torch.cat([a[:, :, ::2, ::2].flatten(2), b.flatten(2)], -2).mean(2)), 16),
    "a flatten from behind": (lambda net, _x, a, _b: net.fc(a[:, :, :2, :2].flatten(-3)), 32),
    "pooled maps side by side": (lambda net, _x, a, b: net.fc(torch.cat([_pooled(a), _pooled(b)], 1)), 16),
    "torch.mean": (lambda net, _x, a, _b: net.fc(net.norm(torch.mean(a, dim=(-1, -2)))), 8),
    "gelu": (lambda net, _x, a, _b: net.fc(nn.functional.gelu(a).mean((2, 3))), 8),
    "a cat by keyword": (lambda net, _x, a, b: net.fc(torch.cat(tensors=[a[:, :, ::2, ::2], b], dim=1).mean((2, 3))), 16),
}  # fmt: skip  # a network a line


@pytest.mark.parametrize("colours", [1, 3, 4])
@pytest.mark.parametrize(("tail", "features"), FOLLOWED.values(), ids=FOLLOWED)
def test_what_leaves_channels_apart_is_followed(tail, features, colours):
    model = _random(Odd(tail, features, colours))
    masks = _masks(model, "dependency_aware")
    images = torch.randn(2, colours, 8, 8, generator=torch.Generator().manual_seed(2))
    smaller = shrink(model, masks)
    assert smaller.a.out_channels == 4
    silent = _silenced(model, masks)
    for name in ("a", "b"):
        silent.get_submodule(name).bias.data[~masks[name]] = 0
    for position, keep in enumerate(masks["a"].tolist()):  # the batch norm over features
        if not keep:
            silent.norm.weight.data[position] = silent.norm.bias.data[position] = 0
    with torch.no_grad():
        assert torch.allclose(smaller(images), silent(images), atol=1e-5)


def _grouped():
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 64, 2)
    )


def test_with_groups_every_segment_loses_its_share():
    """NNI's rule: as many of each of lcm(groups) segments; without it all four would go from the first half, and be
    given back."""
    channels = follow(_grouped())
    scores = {name: torch.arange(8.0) for name in "012"}
    masks = choose(channels, scores, dict.fromkeys(scores, 0.5), "dependency_aware")
    kept = {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}
    assert kept == {"0": [2, 3, 6, 7], "1": [2, 3, 6, 7], "2": [4, 5, 6, 7]}
    smaller = shrink(_grouped(), masks)
    assert [smaller[k].out_channels for k in range(3)] == [4, 4, 4]


def test_pieces_follow_all_groups_or_the_blocks_themselves():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1, groups=2))
    channels = follow(model)
    images, taken, given = channels.layers["0"].takes, channels.layers["1"].takes, channels.layers["1"].gives
    assert channels.pieces([images, taken]) == [[(images, 3)], [(taken[:6], 6), (taken[6:], 6)]]
    cut = channels.pieces([given[:8], given[8:]])
    assert cut == [[(given[:6], 2), (given[6:8], 2)], [(given[8:], 2)]], "gcd(6, 2, 4)"
    thirds = tuple(taken[k : k + 4] for k in range(0, 12, 4))
    both = Channels(channels.layers, frozenset(), (*channels.balanced, thirds), {})
    assert both.pieces([taken]) == [[(taken[k : k + 2], 2) for k in range(0, 12, 2)]], "lcm(2, 3) runs"


@pytest.mark.parametrize("sparsity", [0.25, 0.3, 0.499, 0.5, 0.7, 0.9])
def test_what_grouped_convolutions_cut_across_still_loses_its_share(sparsity):
    """ShuffleV1: streams of 24 + 216 channels, whose next layer takes them in blocks of 80."""
    builder, kwargs = _zoo("repdistiller/ShuffleV1")
    with torch.device("meta"):
        channels = follow(network.build(builder, kwargs))
    layers = chosen_layers(channels, "all")
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(len(channels.layers[name].gives), generator=generator) for name in layers}
    masks = choose(channels, scores, dict.fromkeys(layers, sparsity), "dependency_aware")
    stay = surviving(channels, masks)
    for name in layers:
        gives = channels.layers[name].gives
        gone = sum(channel not in stay for channel in gives)
        assert gone == (~masks[name]).sum(), "nothing that was masked has to come back"
        assert sparsity - 1 / 8 < gone / len(gives) <= sparsity, "in steps of an eighth"


def test_a_depthwise_convolution_that_multiplies_is_followed_and_stored():
    def build(classes=2):
        return nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 8, 1), nn.Flatten(), nn.Linear(8 * 36, classes)
        )  # fmt: skip  # the network at a glance

    model = _random(build())
    channels = follow(model)
    assert not channels.removable("0"), "each of its channels is a group, and a group needs one"
    masks = _masks(model, "dependency_aware")
    smaller = shrink(model, masks)
    assert [smaller[k].out_channels for k in range(3)] == [8, 8, 4]
    with torch.device("meta"):
        stored = build()
    network.take_shapes(stored, smaller.state_dict())
    assert [(c.in_channels, c.out_channels, c.groups) for c in stored[:3]] == [
        (c.in_channels, c.out_channels, c.groups) for c in smaller[:3]
    ]


def test_a_held_network_is_not_shrunk():
    model = vgg.vgg16(classes=10)
    masks = _masks(model, "independent")
    hold(model, masks)
    with pytest.raises(ValueError, match="remove its parametrisations first"):
        shrink(model, masks)


def test_release_leaves_parametrisations_of_others_alone():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1)))
    hold(model, {"0": torch.tensor([True, False] * 3)})
    release(model)
    assert not nn.utils.parametrize.is_parametrized(model[0])
    assert nn.utils.parametrize.is_parametrized(model[1])


def test_running_the_shrinker_leaves_the_model_alone():
    model = _random(vgg.vgg16(classes=10)).train()
    state = copy.deepcopy(model.state_dict())
    shrink(model, _masks(model, "independent"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
