"""Cells searched by NNI's own code, where what it imports is installed; and the refusal where it is not."""

from __future__ import annotations

import pytest
import torch

from benchmark.plan import config
from benchmark.plan.life import lives
from benchmark.run.schedule import refusals
from benchmark.vision.builders import build
from benchmark.vision.models.nas.darts import PRIMITIVES
from benchmark.vision.training import TrainingError
from methods.nas.darts.genotype import PUBLISHED, softmax
from methods.nas.spaces import darts
from methods.nni_bridge import nas
from tests.bench import PlainBench
from tests.harness.helpers import CPU, HERE
from tests.nas.small import darts_search, task

ABSENT = nas.why_unavailable()


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
@pytest.mark.skipif(bool(ABSENT), reason=ABSENT)
@pytest.mark.filterwarnings("default")  # Lightning's and NNI's own, of versions that nobody here chooses
def test_a_search_by_nni_moves_and_ends_in_a_network_of_ours():
    params = darts_search(task=task(darts(4, 3), images=32, batch_size=8, epochs=1))
    made = nas.search(PlainBench(), params)
    alphas = made.arrays["alphas"]
    assert alphas.shape == (2, 28, 8)
    assert not torch.equal(alphas[0], alphas[1])
    assert len(made.details["search"]["history"]) == 2
    architecture = made.details["architecture"]
    network = build(
        "benchmark.vision.models.nas.darts:darts", {**architecture, "channels": 4, "cells": 3, "classes": 10}
    )
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    # NNI takes of each of two inputs the largest raw parameter: the columns are ours, or its own choice would differ
    first = [row[1:].argmax().item() + 1 for row in alphas[1][:2]]
    assert sorted(architecture["genotype"]["normal"][:2]) == sorted([PRIMITIVES[op], n] for n, op in enumerate(first))
    assert len(softmax(alphas[1][0].tolist())) == len(PRIMITIVES)
