"""The stage function of low-rank factorization; fine-tuning is that of `methods.stages`."""

from __future__ import annotations

from dataclasses import replace

from benchmark.plan.stage import Bench, Network, Output
from benchmark.vision.evaluation import accuracy
from methods.factorization.layers import candidates, choose
from methods.factorization.layers import factor as factor_layers
from methods.factorization.plan import Factoring
from methods.stages import handed_on, network_of, ready

FACTORED = "benchmark.vision.models.factored:factored"


def factor(bench: Bench, params: Factoring, trained: Output) -> Output:
    """Replace layers of a trained network by their factors; its accuracy falls because the ranks leave out a part."""
    model, batches = ready(bench, params.task, trained)
    ranks, energy = choose(model, params.energy, params.macs)
    smaller = factor_layers(model, ranks)
    with bench.paused():
        values = {"acc_before_pct": trained.values["acc_pct"], "acc_pct": accuracy(smaller, batches.test)}
        kept = [each.name for each in candidates(model) if each.name not in ranks]
    values |= {"energy_kept": energy, "layers_factored": len(ranks)}
    details = {"ranks": {name: list(rank) for name, rank in ranks.items()}, "layers_kept": kept}
    return handed_on(bench, smaller, _like(network_of(trained), details["ranks"]), values, details)


def _like(network: Network, ranks: object) -> Network:
    """The factored network's builder: the one of factored networks, with this network's builder as its argument."""
    arguments = {"builder": network.builder, "arguments": dict(network.kwargs), "ranks": ranks}
    return replace(network, builder=FACTORED, kwargs=arguments)
