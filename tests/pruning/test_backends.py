"""NNI 3.0 and the native backend: the same masks, the same smaller networks."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from benchmark.vision.models.nni.resnet import resnet18
from methods.pruning.criteria.subject import Subject
from methods.pruning.masks import choose, chosen_layers
from methods.pruning.removal import shrink
from methods.pruning.scores import score
from methods.pruning.trace import follow
from tests.pruning import golden, presets
from tests.pruning.nets import mini

pytest.importorskip("nni", reason="nni is archived: the suite works without it")

CASES = {
    "l1": ("l1", 1, {}),
    "l2": ("l2", 1, {}),
    "fpgm": ("fpgm", 1, {}),
    "taylorfo-post": ("taylorfo", 1, {}),
    "taylorfo-pre": ("taylorfo", 1, {"taylor_weights": "pre"}),
    "taylorfo-post-2": ("taylorfo", 2, {}),
    "taylorfo-pre-2": ("taylorfo", 2, {"taylor_weights": "pre"}),
    "apoz": ("apoz", 1, {}),
    "apoz-post_bn": ("apoz", 1, {"activation_site": "post_bn"}),
    "activation_mean": ("activation_mean", 1, {}),
    "activation_mean-2": ("activation_mean", 2, {}),
}


def _both(subject, choice, channels):
    """The masks of our backend and of NNI's."""
    from methods.nni_bridge import pruning as bridge

    scores = score(subject, choice.scoring)
    native = choose(channels, scores, dict.fromkeys(subject.layers, choice.sparsity), choice.mode)
    return native, bridge.masks(subject, choice)


@pytest.mark.parametrize("mode", ["independent", "dependency_aware"])
@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_backends_give_the_same_masks(case, net, mode):
    name, batches, settings = case
    model = golden.net(net)
    state = copy.deepcopy(model.state_dict())
    steps = [golden.batch(net, number) for number in range(batches)]
    channels = follow(model)
    subject = Subject(model, channels.convolutions(), steps, golden.RECIPE)
    for sparsity in (0.3, 0.5):
        choice = presets.choice(name, sparsity, batches, settings, mode=mode, backend="nni")
        native, theirs = _both(subject, choice, channels)
        assert {n: m.tolist() for n, m in native.items()} == {n: m.tolist() for n, m in theirs.items()}
        assert native
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "mode"), [("all", "independent"), ("nni_resnet", "dependency_aware")])
def test_both_backends_agree_on_a_full_size_network(layers, mode):
    """With nni_resnet a member of the first group is left out: neither masks the others."""
    from methods.nni_bridge import pruning as bridge

    torch.manual_seed(4)
    model = resnet18(classes=10).eval()
    channels = follow(model)
    names = chosen_layers(channels, layers)
    choice = presets.choice("l2", mode=mode, layers=layers, backend="nni")
    native, theirs = _both(Subject(model, names, [], golden.RECIPE), choice, channels)
    assert {n: m.tolist() for n, m in native.items()} == {n: m.tolist() for n, m in theirs.items()}
    assert ("conv1" in native) == (layers == "all")
    ours, smaller = shrink(model, native).state_dict(), bridge.speed_up(model, native).state_dict()
    assert all(torch.equal(ours[name], smaller[name]) for name in ours)


@pytest.mark.slow
def test_nni_is_quiet_even_where_it_was_imported_before(capfd):
    script = """
import nni.compression.pruning, nni.compression.speedup  # as another bridge may have done
import torch
from methods.nni_bridge import pruning
from methods.pruning.criteria.subject import Subject
from tests.pruning import golden, presets
subject = Subject(golden.net("plain"), ["conv1", "conv2"], [], golden.RECIPE)
masks = pruning.masks(subject, presets.choice("l1", backend="nni"))
print("BEGIN", flush=True)
masks = pruning.masks(subject, presets.choice("l1", backend="nni"))
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
    layers = channels.convolutions()
    scores = score(Subject(model, layers, [], golden.RECIPE), presets.scoring("l1"))
    masks = choose(channels, scores, dict.fromkeys(layers, 0.5), mode)
    ours, theirs = shrink(model, masks).state_dict(), bridge.speed_up(model, masks).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["conv1.weight"].shape[0] < 8 or mode == "independent"


def test_a_criterion_without_a_pruner_of_nnis_is_refused(task):
    from methods.nni_bridge import pruning as bridge

    with pytest.raises(ValueError, match=r"backend=nni has no pruner for methods.pruning.criteria.l1:l1 .*native"):
        presets.pruning("l1", nni_pruner=None, backend="nni")
    with pytest.raises(ValueError, match="NNI has no pruner for"):
        bridge.masks(Subject(golden.net("plain"), ["conv1"], [], golden.RECIPE), presets.choice("l1"))
    absent = presets.pruning("l1", nni_pruner="methods.nni_bridge.pruning:l3", backend="nni")
    with pytest.raises(ValueError, match=r"methods.nni_bridge.pruning has no function 'l3'"):
        absent.check(task)
