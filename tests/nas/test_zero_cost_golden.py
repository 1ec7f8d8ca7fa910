"""Scores of untrained networks and their ranking against what the originals compute (newer_golden.json)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from methods.nas.training_free.proxies import agreement, best, joined, naswot, ranks, synflow
from tests.data import golden_inputs as gi

CASES = json.loads((Path(__file__).parent.parent / "data" / "newer_golden.json").read_text())["cases"]


class NetworkA(nn.Module):
    """Three convolutions, one of them in a residual block; rectifiers called as functions."""

    def __init__(self, module_rectifiers: bool = False) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.c2, self.b2 = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.c3, self.b3 = nn.Conv2d(6, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)
        self.relu = nn.ReLU(inplace=True) if module_rectifiers else functional.relu

    def forward(self, x):
        h = self.relu(self.b2(self.c2(self.relu(self.b1(self.c1(x))))))
        return self.fc(self.relu(self.b3(self.c3(h)) + h).mean((2, 3)))


def _network(**how):
    network = NetworkA(**how).double()
    for name, parameter in network.named_parameters():
        layer, field = name.split(".")
        kind = {"c": "conv", "b": "bn", "f": "linear"}[layer[0]]
        value = gi.model_param(f"{kind}_{field}", list(parameter.shape))
        parameter.data.copy_(torch.from_numpy(value))
    return network


def test_synflow_is_that_of_the_original_and_leaves_the_network_alone():
    network, expected = _network(), CASES["nas_net_a"]["expected"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert synflow(network) == pytest.approx(expected["synflow_log"], rel=1e-12)
    assert math.exp(synflow(network)) == pytest.approx(expected["synflow"], rel=1e-9)
    assert synflow(network.float()) == pytest.approx(expected["synflow_log"], rel=1e-6), "computed in float64 anyhow"
    assert all(torch.equal(before[name].float(), value.float()) for name, value in network.state_dict().items())


@pytest.mark.parametrize("module_rectifiers", [False, True])
def test_naswot_is_that_of_the_original_whatever_way_rectifiers_are_called(module_rectifiers):
    network, expected = _network(module_rectifiers=module_rectifiers), CASES["nas_net_a"]["expected"]
    images = torch.from_numpy(gi.model_input(8))
    found = agreement(network, images)
    assert found[0].tolist() == expected["naswot_K_row0"]
    assert found.diagonal().tolist() == [expected["naswot_K_diag"]] * 8
    assert found.sum().item() == expected["naswot_K_sum"]
    assert naswot(network, images) == pytest.approx(expected["naswot_logdet"], rel=1e-9)
    assert int(network.b1.num_batches_tracked) == 0, "its statistics stay as they were"


def test_alike_images_and_dead_networks_are_the_worst():
    network = _network()
    images = torch.from_numpy(gi.model_input(4))
    assert naswot(network, torch.cat([images, images])) == -math.inf
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.zero_()
    assert synflow(network) == -math.inf


def test_ranks_and_their_combination_are_those_of_the_original():
    case = CASES["nas_rank"]
    inputs = {name: entry["values"] for name, entry in case["inputs"].items()}
    expected = case["expected"]
    assert {name: ranks(values) for name, values in inputs.items()} == expected["ranks"]
    assert joined(inputs) == pytest.approx(expected["rank_log_sum"], rel=1e-12)
    assert best(inputs, [1] * 6) == expected["best_by_rank_log_sum"]


def test_equals_go_to_the_fewest_macs_and_nothing_finite_is_an_error():
    assert best({"a": [1.0, 1.0, 0.0]}, [9, 5, 1]) == 1
    assert best({"a": [math.nan, 1.0]}, [1, 9]) == 1
    with pytest.raises(ValueError, match="none of 2 candidates has finite scores"):
        best({"a": [-math.inf, math.nan]}, [1, 2])
