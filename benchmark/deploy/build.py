"""The stage function that builds an engine and proves it."""

from __future__ import annotations

from torch import Tensor

from benchmark.deploy.engines import open_engine, signature
from benchmark.plan.deployment import Build
from benchmark.plan.stage import Bench, Output
from benchmark.plan.task import Recipe
from benchmark.vision.data import TEST_BATCH, Loader, load
from benchmark.vision.evaluation import accuracy
from benchmark.vision.macs import count
from benchmark.vision.network import load as load_network


def build_engine(bench: Bench, params: Build, network: Output) -> Output:
    """Build the engine of a network (metered); its accuracy on the test images is taken off the meter."""
    if network.network is None:
        raise ValueError("the stage to deploy hands on no network")
    engine = open_engine(params.engine, network.network, params.precision, bench.device)
    with bench.paused():
        _, test = load(params.data, bench.data_dir, params.scale)
        recipe = Recipe(
            name="test", epochs=1, batch_size=TEST_BATCH, lr=1, mean=network.network.mean, std=network.network.std
        )

        def logits(images: Tensor) -> Tensor:
            return engine(engine.prepare(images))

        acc_pct = accuracy(logits, Loader(test.to(bench.device), recipe, TEST_BATCH))
        parameters, macs = count(load_network(network.network))
    return Output(
        values={"acc_pct": acc_pct, "params": parameters, "macs": macs, "n_test": len(test)},
        details={"signature": signature(network.network), "engine": params.engine, "precision": params.precision},
    )
