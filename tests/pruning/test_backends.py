"""NNI 3.0 and the native backend: the same masks, the same smaller networks."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from benchmark.vision.models.nni.resnet import resnet18
from methods.pruning.masks import choose, chosen_layers
from methods.pruning.params import Choice, Scoring
from methods.pruning.removal import shrink
from methods.pruning.stages import score
from methods.pruning.trace import follow
from tests.pruning import golden
from tests.pruning.nets import mini

pytest.importorskip("nni", reason="nni is archived: the suite works without it")

SETTINGS = {
    "l1": {"criterion": "l1"},
    "l2": {"criterion": "l2"},
    "fpgm": {"criterion": "fpgm"},
    "taylorfo-post": {"criterion": "taylorfo"},
    "taylorfo-pre": {"criterion": "taylorfo", "taylor_weights": "pre"},
    "taylorfo-post-2": {"criterion": "taylorfo", "batches": 2},
    "taylorfo-pre-2": {"criterion": "taylorfo", "taylor_weights": "pre", "batches": 2},
    "apoz": {"criterion": "apoz"},
    "apoz-post_bn": {"criterion": "apoz", "activation_site": "post_bn"},
    "activation_mean": {"criterion": "activation_mean"},
    "activation_mean-2": {"criterion": "activation_mean", "batches": 2},
}


@pytest.mark.parametrize("mode", ["independent", "dependency_aware"])
@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_both_backends_give_the_same_masks(settings, net, mode):
    from methods.nni_bridge import pruning as bridge

    model = golden.net(net)
    state = copy.deepcopy(model.state_dict())
    scoring = Scoring(**settings)
    steps = [golden.batch(net, number) for number in range(scoring.batches)]
    channels = follow(model)
    layers = channels.convolutions()
    for sparsity in (0.3, 0.5):
        choice = Choice(scoring=scoring, sparsity=sparsity, mode=mode)
        scores = score(model, layers, steps, golden.RECIPE, choice)
        native = choose(channels, scores, dict.fromkeys(layers, sparsity), mode)
        theirs = bridge.masks(model, layers, steps, golden.RECIPE, choice)
        assert {n: m.tolist() for n, m in native.items()} == {n: m.tolist() for n, m in theirs.items()}
        assert native
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("layers", "mode"), [("all", "independent"), ("nni_resnet", "dependency_aware")])
def test_both_backends_agree_on_a_full_size_network(layers, mode):
    """With nni_resnet a member of the first group is left out: neither masks the others."""
    from methods.nni_bridge import pruning as bridge

    torch.manual_seed(4)
    model = resnet18(classes=10).eval()
    channels = follow(model)
    names = chosen_layers(channels, layers)
    choice = Choice(scoring=Scoring(criterion="l2"), sparsity=0.5, mode=mode, layers=layers)
    scores = score(model, names, [], golden.RECIPE, choice)
    native = choose(channels, scores, dict.fromkeys(names, 0.5), mode)
    theirs = bridge.masks(model, names, [], golden.RECIPE, choice)
    assert {n: m.tolist() for n, m in native.items()} == {n: m.tolist() for n, m in theirs.items()}
    assert ("conv1" in native) == (layers == "all")
    ours, smaller = shrink(model, native).state_dict(), bridge.speed_up(model, native).state_dict()
    assert all(torch.equal(ours[name], smaller[name]) for name in ours)


def test_nni_is_quiet_even_where_it_was_imported_before(capfd):
    script = """
import nni.compression.pruning, nni.compression.speedup  # as another bridge may have done
import torch
from methods.nni_bridge import pruning
from methods.pruning.params import Choice, Scoring
from tests.pruning import golden
model, names = golden.net("plain"), ["conv1", "conv2"]
masks = pruning.masks(model, names, [], golden.RECIPE, Choice(scoring=Scoring(criterion="l1"), sparsity=0.5))
print("BEGIN", flush=True)
masks = pruning.masks(model, names, [], golden.RECIPE, Choice(scoring=Scoring(criterion="l1"), sparsity=0.5))
print(sorted(masks), flush=True)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.partition("BEGIN\n")[2] == "['conv1', 'conv2']\n"


@pytest.mark.parametrize("mode", ["independent", "dependency_aware"])
def test_both_backends_shrink_to_the_same_network(mode):
    from methods.nni_bridge import pruning as bridge

    torch.manual_seed(3)
    model = mini()
    channels = follow(model)
    for layer in channels.layers.values():  # statistics that are not the initial ones
        if isinstance(layer.module, torch.nn.BatchNorm2d):
            layer.module.running_mean.uniform_(-1, 1)
            torch.nn.init.uniform_(layer.module.bias)
    choice = Choice(scoring=Scoring(criterion="l1"), sparsity=0.5, mode=mode)
    layers = channels.convolutions()
    scores = score(model, layers, [], golden.RECIPE, choice)
    masks = choose(channels, scores, dict.fromkeys(layers, 0.5), mode)
    ours, theirs = shrink(model, masks).state_dict(), bridge.speed_up(model, masks).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["conv1.weight"].shape[0] < 8 or mode == "independent"
