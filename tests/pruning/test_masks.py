"""Masks that hold: whatever the optimiser does, masked filters stay zero; and the choice of layers and filters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.plan.stage import Output
from benchmark.plan.task import Model
from benchmark.vision.models.nni import resnet, vgg
from benchmark.vision.network import build_model, freeze
from methods.pruning.masks import choose, chosen_layers, hold, release
from methods.pruning.stages import finetune
from methods.pruning.trace import follow
from methods.way import FineTuning
from tests.bench import PlainBench
from tests.pruning.nets import mini

MASKS = {
    "conv1": torch.tensor([True, False] * 4),
    "block1.conv2": torch.tensor([False] * 4 + [True] * 4),
    "block2.conv1": torch.tensor([True] * 6 + [False] * 6),
}


def _train(model, steps=5):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    for seed in range(steps):
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(8)).backward()
        optimiser.step()


def test_masked_filters_stay_zero_under_momentum_and_decay():
    model = mini()
    before = {name: p.clone() for name, p in model.named_parameters()}
    hold(model, MASKS)
    _train(model)
    for name, mask in MASKS.items():
        convolution = model.get_submodule(name)
        assert convolution.weight[~mask].abs().sum() == 0
        assert (convolution.weight[mask] != before[f"{name}.weight"][mask]).all()
    assert model.conv1.bias[~MASKS["conv1"]].abs().sum() == 0
    release(model)
    assert [name for name, _ in model.named_parameters()] == list(before)
    assert type(model.conv1) is nn.Conv2d
    for name, mask in MASKS.items():
        assert isinstance(model.get_submodule(name).weight, nn.Parameter)
        assert model.get_submodule(name).weight[~mask].abs().sum() == 0
        assert model.get_submodule(name).weight[mask].abs().sum() > 0


def test_release_changes_no_output():
    model = mini().eval()
    hold(model, MASKS)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        masked = model(images)
        release(model)
        assert torch.equal(model(images), masked)


def test_a_masked_fine_tuning_that_is_broken_off_resumes_to_the_same_network(task):
    task = task.model_copy(update={"model": Model(name="mini", builder="tests.pruning.nets:mini")})
    torch.manual_seed(5)
    network = freeze(build_model(task.model, 10), task.model, 10, task.recipe)
    given = Output(network=network, arrays=MASKS, values={"acc_pct": 10.0})
    whole = finetune(PlainBench(), FineTuning(task=task), given)
    bench = PlainBench(stop_at=1.4)
    with pytest.raises(KeyboardInterrupt):
        finetune(bench, FineTuning(task=task), given)
    assert bench.state is not None
    resumed = finetune(PlainBench(bench.state), FineTuning(task=task), given)
    assert all(torch.equal(resumed.network.tensors[n], t) for n, t in whole.network.tensors.items())
    assert resumed.values == whole.values
    for name, mask in MASKS.items():
        assert resumed.network.tensors[f"{name}.weight"][~mask].abs().sum() == 0
        assert torch.equal(resumed.arrays[name], mask)


def test_layer_sets_are_nnis():
    with torch.device("meta"):
        sixteen, nineteen, residual = (follow(net()) for net in (vgg.vgg16, vgg.vgg19, resnet.resnet18))
    six = [f"feature.{number}" for number in (0, 24, 27, 30, 34, 37)]
    assert chosen_layers(sixteen, "nni") == six
    assert chosen_layers(sixteen, "nni_conv13") == [*six, "feature.40"]
    assert len(chosen_layers(sixteen, "all")) == 13
    assert chosen_layers(nineteen, "nni") == ["feature.0", "feature.27", "feature.30"], (
        "the names were written for VGG16"
    )
    assert set(follow(mini()).convolutions()) - {"conv1"} == {
        "block1.conv1",
        "block1.conv2",
        "block2.conv1",
        "block2.conv2",
        "block2.shortcut.0",
    }
    assert set(residual.convolutions()) - set(chosen_layers(residual, "nni_resnet")) == {
        "layer1.0.conv1",
        "layer1.0.conv2",
    }


def test_what_was_removed_earlier_goes_first():
    channels = follow(mini())
    scores = {"conv1": torch.zeros(8)}  # as of dead filters
    earlier = {"conv1": torch.tensor([True] * 6 + [False] * 2)}
    masks = choose(channels, scores, {"conv1": 0.5}, earlier=earlier)
    assert masks["conv1"].tolist() == [False, False, True, True, True, True, False, False]


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match="conv1: sparsity"):
        choose(follow(mini()), {"conv1": torch.arange(8.0)}, {"conv1": share})


def test_joint_scores_are_sums_and_masks_are_shared():
    channels = follow(mini())
    scores = {name: torch.zeros(len(channels.layers[name].gives)) for name in channels.convolutions()}
    scores["conv1"] = torch.tensor([9.0, 1, 1, 9, 1, 1, 9, 9])
    scores["block1.conv2"] = torch.tensor([0.0, 9, 2, 0, 0, 9, 9, 9])
    masks = choose(channels, scores, dict.fromkeys(scores, 0.5), "dependency_aware")
    # sums: 9 10 3 9 1 10 18 18; of the two nines the first goes
    assert (
        masks["conv1"].tolist()
        == masks["block1.conv2"].tolist()
        == [False, True, False, False, False, True, True, True]
    )
