"""Ranks, parameters, MACs, approximations and outputs against an independent implementation (quant_golden.json)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.vision.models.factored import factors
from methods.factorization import decompose
from methods.factorization.layers import Candidate, candidates, factor
from tests.data import golden_inputs as gi

CASES = json.loads((Path(__file__).parent.parent / "data" / "quant_golden.json").read_text())["lowrank"]
MATRICES = [name for name, case in CASES.items() if "matrix" in case]
KERNELS = [name for name, case in CASES.items() if "tensor" in case]
ENERGIES = ("0.9", "0.95", "0.99")
VARIANTS = {
    "hosvd": (0, 0.0),
    "one_iteration": (1, 0.0),
    "default_100_tol_1e-4": (100, 1e-4),
    "converged_tol_0_500": (500, 0.0),
}


def _weight(case):
    if "matrix" in case:
        it = case["matrix"]
        noise = gi.tensor(it["seed"], [it["m"], it["n"]], -it["noise"], it["noise"])
        left = gi.tensor(it["seed"] + 1, [it["m"], it["terms"]], -1, 1) * it["decay"] ** np.arange(it["terms"])
        weight = noise + left @ gi.tensor(it["seed"] + 2, [it["terms"], it["n"]], -1, 1)
    else:
        it = case["tensor"]
        shape = [it["out"], it["in"], it["k"], it["k"]]
        steps = it["decay"] ** (np.arange(it["r_out"])[:, None] + np.arange(it["r_in"])[None])
        core = gi.tensor(it["seed"] + 1, [it["r_out"], it["r_in"], it["k"], it["k"]], -1, 1) * steps[..., None, None]
        u = gi.tensor(it["seed"] + 2, [it["out"], it["r_out"]], -1, 1)
        v = gi.tensor(it["seed"] + 3, [it["in"], it["r_in"]], -1, 1)
        noise = gi.tensor(it["seed"], shape, -it["noise"], it["noise"])
        weight = noise + np.einsum("oa,ib,abhw->oihw", u, v, core)
    for name, value in gi.checksum(weight).items():
        assert value == pytest.approx(case["checksum"][name], rel=1e-9), "the recipe was rebuilt otherwise"
    return torch.from_numpy(weight)


def _layer(case):
    weight, bias = _weight(case), torch.from_numpy(gi.tensor(**_seeded(case["bias"])))
    if case.get("kind") == "linear":
        layer = nn.Linear(*reversed(weight.shape), dtype=torch.float64)
    else:
        weight = weight if weight.ndim == 4 else weight[..., None, None]
        out, into, *size = weight.shape
        layer = nn.Conv2d(into, out, size, stride=case["stride"], padding=case.get("padding", 0), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _seeded(entry):
    return {"seed": entry["seed"], "shape": entry["shape"], "lo": entry["lo"], "hi": entry["hi"]}


def _images(case):
    return torch.from_numpy(gi.tensor(**_seeded(case["input"])))


def _same(found, wanted, rel=1e-9):
    values = found.detach().numpy()
    sums = gi.checksum(values)
    slack = rel * float(np.sqrt(values.size * wanted["sumsq"]))
    assert sums["sumsq"] == pytest.approx(wanted["sumsq"], rel=rel)
    assert sums["sum"] == pytest.approx(wanted["sum"], abs=slack)
    assert sums["weighted"] == pytest.approx(wanted["weighted"], abs=slack)
    assert values.ravel()[:6] == pytest.approx(wanted["first6"], rel=1e-8, abs=1e-9)


def _candidate(case, layer):
    if isinstance(layer, nn.Linear):
        return Candidate("layer", layer, 1, 1)
    images = _images(case)
    return Candidate("layer", layer, images[0, 0].numel(), layer(images)[0, 0].numel())


@pytest.mark.parametrize("name", CASES)
def test_dense_costs_and_singular_values(name):
    case, layer = CASES[name], _layer(CASES[name])
    own = _candidate(case, layer)
    assert own.macs() == case["dense"]["macs"]
    assert sum(p.numel() for p in layer.parameters()) == case["dense"]["parameters"]
    listed = ["singular_values"] if "matrix" in case else ["singular_values_out_mode", "singular_values_in_mode"]
    for found, key in zip(own.singular(), listed, strict=True):
        assert found[: len(case[key])].tolist() == pytest.approx(case[key], rel=1e-9)
    _same(layer(_images(case)), case["dense"]["y"])


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name", MATRICES)
def test_svd(name, energy):
    case, layer = CASES[name], _layer(CASES[name])
    wanted, own = case["by_energy"][energy], _candidate(case, layer)
    (rank,) = ranks = own.ranks(float(energy), own.singular())
    assert rank == wanted["rank"]
    made = factor(nn.Sequential(layer), {"0": ranks})
    assert own.macs(ranks) == wanted["macs"]
    assert (own.macs(ranks) < own.macs()) is wanted["saves"]
    assert sum(p.numel() for p in made.parameters()) == wanted["parameters"]
    left, right = decompose.svd(layer.weight.flatten(1), rank)
    _same(left @ right, wanted["approximation"])
    _same(made(_images(case)), wanted["y"])
    error = (left @ right - layer.weight.flatten(1)).norm() / layer.weight.norm()
    assert error.item() == pytest.approx(wanted["relative_error"], rel=1e-9)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name", KERNELS)
def test_tucker(name, energy):
    case, layer = CASES[name], _layer(CASES[name])
    wanted, own = case["by_energy"][energy], _candidate(case, layer)
    ranks = own.ranks(float(energy), own.singular())
    assert list(ranks) == wanted["ranks_out_in"]
    assert own.macs(ranks) == wanted["macs"]
    assert (own.macs(ranks) < own.macs()) is wanted["saves"]
    parts = factors(layer, ranks)
    assert sum(p.numel() for p in parts.parameters()) == wanted["parameters"]
    for variant, (iterations, tolerance) in VARIANTS.items():
        if iterations == 500 and energy != "0.9":
            continue  # a second each, and what they would show the others have shown
        core, u, v = decompose.tucker(layer.weight.detach(), ranks, iterations, tolerance)
        expected = wanted[variant]
        assert core.square().sum().item() == pytest.approx(expected["core_sumsq"], rel=1e-9)
        near = torch.einsum("abhw,oa,ib->oihw", core, u, v)
        error = ((near - layer.weight).norm() / layer.weight.norm()).item()
        assert error == pytest.approx(expected["relative_error"], rel=1e-8, abs=1e-13)
        with torch.no_grad():
            for part, weight in zip(parts, (v.mT, core, u), strict=True):
                part.weight.copy_(weight.reshape(part.weight.shape))
            parts[-1].bias.copy_(layer.bias)
        _same(parts(_images(case)), expected["y"], rel=1e-7 if variant.startswith("default") else 1e-8)
    made = factor(nn.Sequential(layer), {"0": ranks})
    _same(made(_images(case)), wanted["default_100_tol_1e-4"]["y"], rel=1e-7)


def test_the_stride_of_a_1x1_convolution_is_the_first_factors():
    case = CASES["conv1x1_stride2"]
    parts = factors(_layer(case), (2,))
    assert (parts[0].stride, parts[1].stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize("name", CASES)
def test_at_full_rank_factors_are_the_layer(name):
    """To 1e-10 in float64."""
    layer, images = _layer(CASES[name]), _images(CASES[name])
    weight = layer.weight
    full = (min(weight.flatten(1).shape),) if "matrix" in CASES[name] else decompose.possible(*weight.shape[:2], 9)
    made, dense = factor(nn.Sequential(layer), {"0": full})(images), layer(images)
    assert float((made - dense).detach().norm() / dense.detach().norm()) < 1e-10


def test_candidates_leave_out_what_has_no_factors():
    shared = nn.Conv2d(4, 4, 3, padding=1)
    tied = nn.Conv2d(4, 4, 3, padding=1)
    tied.weight = shared.weight
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4), shared, tied,
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip  # one layer a line would hide the shape
    assert [each.name for each in candidates(model)] == ["0", "7"]
