"""The cost of steps of architecture searches, relative to a training step of a final network.

    python scripts/perf_nas.py [rounds]

It measures ProxylessNAS on P-MB S (a weight step along one path, architecture steps on two paths and on all) beside a
training step of a network of that space, and DARTS with few channels, in both orders. Sides are interleaved round by
round, the plain one twice (the control). On a CPU it uses two threads and small batches; on a GPU eager steps, and also
DARTS's first order replayed from its graph.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from perf_common import interleave, machine, ratios, spread
from torch import Tensor

from benchmark.plan.task import Data, Recipe, Scale, Task
from benchmark.vision.graph import Graphed, graph_backend
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.network import build_model
from benchmark.vision.training_step import start, step
from methods.nas.darts.search import Searcher as CellSearcher
from methods.nas.darts.supernet import SearchNetwork
from methods.nas.params import Alphas, Order
from methods.nas.proxyless.gates import Paths
from methods.nas.proxyless.search import Searcher
from methods.nas.resolve import supernet_of
from methods.nas.spaces import pmb
from methods.nas.stages import derived

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
BATCH, STEPS = (64, 4) if torch.cuda.is_available() else (16, 1)
CHANNELS, CELLS = 8, 3
RECIPE = Recipe(name="perf", epochs=1, batch_size=BATCH, lr=1e-6, clip_norm=5, mean=(0, 0, 0), std=(1, 1, 1))
SPACE = pmb("s")
TASK = Task(
    model=SPACE.model,
    data=Data(name="synthetic", classes=100),
    scale=Scale(name="perf"),
    recipe=RECIPE,
    seed=0,
    train_precision="fp32",
)


def _batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(BATCH, 3, 32, 32, device=DEVICE), torch.randint(0, 100, (BATCH,), device=DEVICE)


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    """A function that returns the seconds of a call, averaged over a few."""

    def seconds() -> float:
        _wait()
        began = time.perf_counter()
        for _ in range(STEPS):
            call()
        _wait()
        return (time.perf_counter() - began) / STEPS

    return seconds


def _plain() -> Callable[[], float]:
    """A training step of one network of the space, drawn at random."""
    images, labels = _batch()
    model = build_model(derived(SPACE.model, SPACE.architecture(SPACE.draw(0, 0))), 100)
    run = start(model, CrossEntropy(), TASK, DEVICE)
    model.train()
    return _timed(lambda: step(run, TASK, (images, labels, labels)))


def _proxyless(kind: str) -> Callable[[], float]:
    torch.manual_seed(0)
    batch, net = _batch(), supernet_of(SPACE, 100)
    searcher = Searcher.on(net, RECIPE, Alphas(lr=1e-3, betas=(0.0, 0.999)), DEVICE)
    net.train()
    paths, generator = Paths(net.edges), torch.Generator().manual_seed(0)
    calls: dict[str, Callable[[], object]] = {
        "weights": lambda: searcher.weight_step(batch, paths.single(1, generator)[0]),
        "two": lambda: searcher.architecture_step(batch, paths.two(generator)),
        "full": lambda: searcher.architecture_step(batch, paths.full(generator)),
    }
    return _timed(calls[kind])


def _cells(order: Order, replayed: bool = False) -> Callable[[], float]:
    torch.manual_seed(0)
    images, labels = _batch()
    searcher = CellSearcher.on(SearchNetwork(CHANNELS, CELLS, 100), RECIPE, order, DEVICE)
    searcher.network.train()

    def work(rows: Tensor) -> None:
        del rows  # the same images at every step
        searcher.step((images, labels), (images, labels))

    rows = torch.zeros(BATCH, 1, dtype=torch.int64, device=DEVICE)
    if not replayed:
        return _timed(lambda: work(rows))
    backend = graph_backend(DEVICE)
    assert backend is not None, "only a GPU replays"
    graphed = Graphed(work, backend)

    def replay() -> None:
        with backend.stream():
            graphed(rows)

    return _timed(replay)


def _wait() -> None:
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print all."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if DEVICE == "cpu":
        torch.set_num_threads(2)
    print(machine())
    sides = {
        "plain": _plain(),
        "plain again": _plain(),
        "ProxylessNAS, weights": _proxyless("weights"),
        "ProxylessNAS, two paths": _proxyless("two"),
        "ProxylessNAS, all paths": _proxyless("full"),
        "DARTS c8, 3 cells, first order": _cells("first"),
        "DARTS c8, 3 cells, second": _cells("second"),
    }
    if DEVICE != "cpu":
        sides["DARTS, first order, replayed"] = _cells("first", replayed=True)
    for warm_up in sides.values():
        for _ in range(1 if DEVICE == "cpu" else 3):  # more calls than a graph's warm-up, where graphs exist
            warm_up()
    costs = interleave(sides, rounds)
    print(f"a step, batch {BATCH}, relative to a training step of a random {SPACE.model.name}; n = {rounds}")
    for name in sides:
        alone = 1e3 * statistics.median(costs[name])
        print(f"    {name:<32}{spread(ratios(costs[name], costs['plain'])):>22}   {alone:.0f} ms")


if __name__ == "__main__":
    main()
