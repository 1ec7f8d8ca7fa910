"""The stage function that builds an engine and proves it."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.deploy.answers import answers
from benchmark.deploy.eager import strict
from benchmark.deploy.engines import kind_named
from benchmark.deploy.points import ANSWERS
from benchmark.plan.deployment import Build, BuildOrder
from benchmark.plan.stage import Bench, EngineFile, Network, Output
from benchmark.plan.task import Recipe
from benchmark.vision.data import TEST_BATCH, Loader, load
from benchmark.vision.macs import count
from benchmark.vision.network import load as load_network


def build_engine(bench: Bench, params: Build, network: Output, scales: Output | None = None) -> Output:
    """Build the engine of a network (metered), load it, and compare its answers with the network's (off the meter).

    The network's answers to the test images are PyTorch's, or those under fake quantization where it was trained so.
    Returns the engine; its details say what it executes. Raises EngineError.
    """
    if network.network is None:
        raise ValueError("the stage to deploy must output a network, and outputs none")
    kind = kind_named(params.engine)
    arrays = None if scales is None else scales.arrays
    built = kind.build(BuildOrder(network.network, arrays, params.precision, bench.device, _off_meter(bench)))
    with bench.paused():
        engine = kind.load(built, bench.device)
        trained = None if arrays is None else arrays.get(ANSWERS + str(built.executes["layout"]))
        own = strict(network.network, bench.device)
        found = answers(engine, own, _test_images(bench, params, built), trained)
        parameters, macs = _size(network.network)
    told = {"executes": dict(engine.executes), **({"evidence": dict(built.evidence)} if built.evidence else {})}
    return Output(
        engine=built,
        values={**found._asdict(), "params": parameters, "macs": macs},
        details={"signature": built.signature, "engine": built.kind, **told},
    )


def _off_meter(bench: Bench) -> Callable[[str, Callable[[], str]], str]:
    def choose(what: str, decide: Callable[[], str]) -> str:
        with bench.paused():
            return bench.once(what, decide)

    return choose


def _test_images(bench: Bench, params: Build, built: EngineFile) -> Loader:
    _, test = load(params.data, bench.data_dir, params.scale)
    recipe = Recipe(name="test", epochs=1, batch_size=TEST_BATCH, lr=1, mean=built.mean, std=built.std)
    return Loader(test.to(bench.device), recipe, TEST_BATCH)


def _size(network: Network) -> tuple[int, int]:
    """Parameters and MACs of the network that the engine was built from."""
    return count(load_network(network))
