"""One-shot search of cells by NNI 3.0's own code: its DARTS space, its mixed operations, its derivation, on our loop.

NNI's trainer (Lightning, NasExperiment) is not used: it writes files of its own, and its learning rate of the weights
never falls. docs/nas.md says how its space and its derivation differ from the original.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Bench, Output
from benchmark.vision.models.nas.darts import NODES, PRIMITIVES
from benchmark.vision.training import TrainingError, seed_everything
from methods.nas.darts.genotype import derive
from methods.nas.darts.search import search_with
from methods.nas.darts.supernet import SearchNetwork
from methods.nas.params import DartsSearch
from methods.nni_bridge.quiet import quiet

NEEDED = ("pytorch_lightning", "torchmetrics")
"""Packages that `nni.nas` imports, but that NNI's distribution does not require."""

MODULES = ("nni.nas.hub.pytorch", "nni.nas.strategy", "nni.nas.oneshot.pytorch.supermodule.base")


def why_unavailable() -> str:
    """Why NNI's searches cannot run here, with the remedy; empty where they can. Imports nothing."""
    absent = [name for name in ("nni", *NEEDED) if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    remedy = "pip install 'pytorch-lightning>=2.6,<3' 'torchmetrics>=1.9,<2' (the extra nni-nas)"
    return f"backend=nni: {' and '.join(absent)} not installed, which nni.nas imports: {remedy}"


def search(bench: Bench, params: DartsSearch) -> Output:
    """As `methods.nas.darts.search.search`, with NNI's network; returns the genotype that NNI derives.

    `details["original_rule"]` is the genotype that DARTS's own rule derives from the same parameters. NNI compares
    edges by raw parameters, so it may choose other edges. Raises TrainingError where NNI's searches cannot run.
    """
    why = why_unavailable()
    if why:
        raise TrainingError(why)
    size = params.task.model.kwargs
    seed_everything(params.task.seed)
    with bench.paused():  # imports: some seconds, once per process
        prepare()
    network = NniCells(size["channels"], size["cells"], params.task.data.classes)
    made = search_with(bench, params, cast(SearchNetwork, network))  # it has what the loop needs
    tables = {kind: table.tolist() for kind, table in network.tables().items()}
    original = derive(tables["normal"], tables["reduce"], PRIMITIVES)
    return Output(arrays=made.arrays, values=made.values, details={**made.details, "original_rule": original})


def prepare() -> None:
    """Import all NNI modules that this module needs."""
    with quiet(MODULES):
        pass


class NniCells(nn.Module):
    """NNI's search network of cells (its hub's DARTS, mutated by its DARTS strategy), in the form our loop needs."""

    def __init__(self, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        with quiet(MODULES):
            hub, strategy = (importlib.import_module(name) for name in MODULES[:2])
            layers = importlib.import_module("nni.nas.nn.pytorch")

            class Space(hub.DARTS):  # type: ignore[misc,name-defined] # NNI ships no types
                """NNI's CIFAR network, which has ten classes and no setting for another number."""

                def __init__(self) -> None:
                    super().__init__(width=channels, num_cells=cells, dataset="cifar", auxiliary_loss=False)
                    into: int = self.classifier.in_features  # type: ignore[has-type] # same
                    self.classifier = layers.MutableLinear(into, classes)

            self.space = strategy.DARTS().mutate_model(Space())
        found = {name.rpartition(".")[2]: own for name, own in self.named_parameters() if "._arch_alpha." in name}
        self._alphas = {  # a plain dict: the space holds them already
            kind: [found[f"{kind}/{2 + node}_{source}"] for node in range(NODES) for source in range(2 + node)]
            for kind in ("normal", "reduce")
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes]."""
        return self.space(images)  # type: ignore[no-any-return] # NNI ships no types

    def architecture(self) -> list[nn.Parameter]:
        """The architecture parameters, one tensor per edge: normal, then reduce."""
        return [*self._alphas["normal"], *self._alphas["reduce"]]

    def weights(self) -> dict[str, nn.Parameter]:
        """All other parameters by name."""
        return {name: own for name, own in self.named_parameters() if "._arch_alpha." not in name}

    def genotype(self) -> dict[str, Any]:
        """The genotype that NNI derives now, in our words. Waits for the device."""
        with quiet(MODULES):
            base = importlib.import_module(MODULES[2]).BaseSuperNetModule
            exported: dict[str, Any] = {}
            for module in self.space.modules():
                if isinstance(module, base):
                    exported.update(module.export(exported))
        return translated(exported)

    def tables(self) -> Mapping[str, Tensor]:
        """The architecture parameters [14, 8] by the kind of cell, on the host."""
        # NNI has `none` in the last column, as a row of zeros instead of an operation
        return {kind: torch.stack(list(own)).detach().cpu().roll(1, 1) for kind, own in self._alphas.items()}


def translated(exported: Mapping[str, Any]) -> dict[str, Any]:
    """NNI's choices ('normal/op_2_0': 'skip_connect', 'normal/input_2_0': [1], ...) as a genotype."""
    concat = list(range(2, 2 + NODES))
    cells = {
        kind: [
            [exported[f"{kind}/op_{node}_{pair}"], int(exported[f"{kind}/input_{node}_{pair}"][0])]
            for node in concat
            for pair in range(2)
        ]
        for kind in ("normal", "reduce")
    }
    return {**cells, "normal_concat": concat, "reduce_concat": concat}
