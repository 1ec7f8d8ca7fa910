"""Cells searched by NNI's own code, where what it imports is installed; and the refusal where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.plan import config
from benchmark.plan.life import lives
from benchmark.run.schedule import refusals
from benchmark.vision.builders import build
from benchmark.vision.models.nas.darts import PRIMITIVES
from benchmark.vision.training import TrainingError
from methods.nas.darts.genotype import PUBLISHED, derive
from methods.nas.darts.supernet import MixedEdge, SearchNetwork
from methods.nas.spaces import darts
from methods.nni_bridge import nas
from tests.bench import PlainBench
from tests.harness.helpers import CPU, HERE
from tests.nas.small import darts_search, task

ABSENT = nas.why_unavailable()
needs_nni = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)


def test_choices_of_nni_are_translated_pair_by_pair():
    exported = {}
    for kind in ("normal", "reduce"):
        for number, (op, node) in enumerate(PUBLISHED["DARTS_V1"][kind]):
            place = f"{2 + number // 2}_{number % 2}"
            exported |= {f"{kind}/op_{place}": op, f"{kind}/input_{place}": [node]}
    assert nas.translated(exported) == PUBLISHED["DARTS_V1"]


def test_without_what_nni_imports_the_search_is_refused_before_work(monkeypatch):
    monkeypatch.setattr(nas, "NEEDED", ("no_such_lightning",))
    words = ["method=nas/darts_tiny", "method.backend=nni"]
    life = lives(config.parse(config.compose(words), CPU)[0], HERE)[0]
    assert life.plan.steps[0][1].fn == "methods.nni_bridge.nas:search"
    why = refusals([life], CPU, "cpu")[0]
    assert "backend=nni: no_such_lightning not installed, which nni.nas imports: pip install" in why
    with pytest.raises(TrainingError, match="no_such_lightning not installed"):
        nas.search(PlainBench(), darts_search())


@pytest.mark.slow
@needs_nni
def test_a_search_by_nni_moves_and_ends_in_a_network_of_ours():
    params = darts_search(task=task(darts(4, 3), images=32, batch_size=8, epochs=1))
    made = nas.search(PlainBench(), params)
    alphas = made.arrays["alphas"]
    assert alphas.shape == (2, 28, 8)
    assert (alphas[1] != alphas[0]).any(1).all(), "every edge's"
    assert len(made.details["search"]["history"]) == 2
    architecture = made.details["architecture"]
    network = build(
        "benchmark.vision.models.nas.darts:darts", {**architecture, "channels": 4, "cells": 3, "classes": 10}
    )
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    tables = [alphas[1][:14], alphas[1][14:]]
    cells = [architecture["genotype"][kind] for kind in ("normal", "reduce")]
    assert cells == [by_raw_parameters(table) for table in tables]
    assert made.details["original_rule"] == derive(*(table.tolist() for table in tables), PRIMITIVES)


@pytest.mark.slow
@needs_nni
def test_an_interrupted_search_by_nni_goes_on_as_if_it_had_not_been():
    params = darts_search(task=task(darts(4, 3), images=32, batch_size=8, epochs=2))
    whole, broken = nas.search(PlainBench(), params), PlainBench(stop_at=1.1)
    with pytest.raises(KeyboardInterrupt):
        nas.search(broken, params)
    rest = nas.search(PlainBench(state=broken.state), params)
    assert torch.equal(rest.arrays["alphas"], whole.arrays["alphas"])
    assert rest.details == whole.details


@pytest.mark.slow
@needs_nni
def test_the_network_of_nni_is_ours_but_for_its_batch_norms():
    """Edges, operations and columns are where we think they are: equal weights give equal logits and gradients."""
    torch.manual_seed(0)
    theirs, ours = nas.NniCells(4, 4, 7).double(), SearchNetwork(4, 4, 7).double()
    norms = [module for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms), "ours are not, but for the stem's"
    added = {id(parameter) for norm in norms[1:] for parameter in norm.parameters()}
    for edge in (module for module in ours.modules() if isinstance(module, MixedEdge)):
        for pool in ("max_pool_3x3", "avg_pool_3x3"):
            edge[pool] = edge[pool][0]  # NNI's pools have no batch norm after them
    weights = [weight for weight in theirs.weights().values() if id(weight) not in added]
    with torch.no_grad():
        for own, weight in zip(ours.weights().values(), weights, strict=True):
            own.copy_(weight)
        for row in theirs.architecture():
            row.normal_()
        ours.alphas_normal.copy_(theirs.tables()["normal"])
        ours.alphas_reduce.copy_(theirs.tables()["reduce"])
    images, labels = torch.randn(4, 3, 32, 32).double(), torch.tensor([0, 3, 6, 1])
    logits = [network(images) for network in (theirs, ours)]
    torch.testing.assert_close(logits[0], logits[1])
    slopes = [
        torch.autograd.grad(functional.cross_entropy(answer, labels), network.architecture())
        for answer, network in zip(logits, (theirs, ours), strict=True)
    ]
    rolled = torch.stack(slopes[0]).roll(1, 1)  # `none` is NNI's last column and our first
    torch.testing.assert_close(rolled, torch.cat(slopes[1]))


def by_raw_parameters(table):
    """NNI's rule: of each edge the largest parameter but none's, of each node the two edges where it is largest."""
    pairs, first = [], 0
    for node in range(4):
        best = table[first : first + 2 + node, 1:].max(1)
        first += 2 + node
        edges = best.values.argsort(descending=True)[:2].tolist()
        pairs += [[PRIMITIVES[1 + int(best.indices[edge])], edge] for edge in edges]
    return pairs
