"""Searches on a GPU: steps replayed from graphs search as eager ones do, and half precision learns."""

from __future__ import annotations

import pytest
import torch

from benchmark.vision.graph import graph_backend
from methods.nas.darts import search as darts_module
from methods.nas.darts.search import search as search_cells
from methods.nas.proxyless.search import search
from methods.nas.training_free.proxies import agreement
from tests.bench import PlainBench
from tests.nas.small import SPACE, darts_search, proxyless_search, task

pytestmark = pytest.mark.gpu


class OnGpu(PlainBench):
    """The first GPU."""

    device = "cuda:0"


def test_captured_search_steps_do_what_eager_ones_do(monkeypatch):
    params = darts_search(task=task(images=128, batch_size=8, epochs=2))
    captured = search_cells(OnGpu(), params)
    assert captured.details["execution"]["graphs"] == [8], captured.details["execution"]
    monkeypatch.setattr(darts_module, "graph_backend", lambda device: None)
    eager = search_cells(OnGpu(), params)
    assert eager.details["execution"]["graphs"] == []
    for name in ("train_loss", "valid_loss"):
        assert captured.values[name] == pytest.approx(eager.values[name], rel=0.02)
    difference = (captured.arrays["alphas"] - eager.arrays["alphas"]).abs().max()
    moved = (eager.arrays["alphas"][-1] - eager.arrays["alphas"][0]).abs().max()
    assert difference < 0.2 * moved
    assert graph_backend("cuda:0") is not None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_search_of_blocks_runs_in_every_precision(precision):
    own = task(SPACE.model, epochs=3).model_copy(update={"train_precision": precision})
    made = search(OnGpu(), proxyless_search(task=own))
    alphas = made.arrays["alphas"].nan_to_num(0)
    assert not torch.equal(alphas[0], alphas[-1])
    assert made.values["valid_loss"] < 10


def test_codes_are_counted_exactly_whatever_the_switches():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()).cuda()
    images = torch.randn(16, 3, 64, 64, device="cuda:0")
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found = agreement(network, images)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert found.diagonal().tolist() == [3 * 64 * 64] * 16
