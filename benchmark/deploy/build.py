"""The stage function that builds an engine and proves it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from benchmark.deploy.engines import kind_named
from benchmark.plan.deployment import Build, BuildOrder, Engine
from benchmark.plan.stage import Bench, EngineFile, Network, Output
from benchmark.plan.task import Recipe
from benchmark.vision.data import TEST_BATCH, Loader, load
from benchmark.vision.evaluation import accuracy
from benchmark.vision.macs import count
from benchmark.vision.network import load as load_network


def build_engine(bench: Bench, params: Build, network: Output, scales: Output | None = None) -> Output:
    """Build the engine of a network (metered), load it, and take its accuracy on the test images (off the meter).

    Hands on the engine; its details say what it executes.
    """
    if network.network is None:
        raise ValueError("the stage to deploy hands on no network")
    kind = kind_named(params.engine)
    arrays = None if scales is None else scales.arrays
    built = kind.build(BuildOrder(network.network, arrays, params.precision, bench.device, _off_meter(bench)))
    with bench.paused():
        engine = kind.load(built, bench.device)
        acc_pct, n_test = _accuracy(bench, params, built, engine)
        parameters, macs = _size(network.network)
    return Output(
        engine=built,
        values={"acc_pct": acc_pct, "params": parameters, "macs": macs, "n_test": n_test},
        details={"signature": built.signature, "engine": built.kind, "executes": dict(engine.executes)},
    )


def _off_meter(bench: Bench) -> Callable[[str, Callable[[], str]], str]:
    def choose(what: str, decide: Callable[[], str]) -> str:
        with bench.paused():
            return bench.once(what, decide)

    return choose


def _accuracy(bench: Bench, params: Build, built: EngineFile, engine: Engine) -> tuple[float, int]:
    """Accuracy in percent, and the number of test images."""
    _, test = load(params.data, bench.data_dir, params.scale)
    recipe = Recipe(name="test", epochs=1, batch_size=TEST_BATCH, lr=1, mean=built.mean, std=built.std)

    def logits(images: Tensor) -> Tensor:
        found: Tensor = engine(engine.prepare(images))
        return found

    return accuracy(logits, Loader(test.to(bench.device), recipe, TEST_BATCH)), len(test)


def _size(network: Network) -> tuple[int, int]:
    """Parameters and MACs of the network the engine was built of."""
    return count(load_network(network))
