"""Which layers of a network are factored, at which ranks, and what that costs and saves."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.vision.macs import count
from benchmark.vision.models.factored import factors
from benchmark.vision.modes import evaluating
from methods.factorization.decompose import possible, rank_for, spectra, svd, tucker

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """A layer that can be factored: linear or 1x1 (one rank), or a larger kernel (ranks out and in).

    `taken` and `given` are the numbers of positions of its input and output maps (1 for a linear layer).
    """

    name: str
    layer: nn.Linear | nn.Conv2d
    taken: int
    given: int

    @property
    def by_svd(self) -> bool:
        """Whether its weight is a matrix."""
        return isinstance(self.layer, nn.Linear) or self.layer.kernel_size == (1, 1)

    @property
    def area(self) -> int:
        """The elements of its kernel."""
        return 1 if isinstance(self.layer, nn.Linear) else math.prod(self.layer.kernel_size)

    def macs(self, ranks: Ranks | None = None) -> int:
        """Multiply-accumulates for one image: of the dense layer, or of its factors where `ranks` is given."""
        rows, columns = self.layer.weight.shape[:2]
        if ranks is None:
            return self.given * rows * columns * self.area
        if len(ranks) == 1:
            return self.given * ranks[0] * (rows + columns)  # the first factor has the stride
        r_out, r_in = ranks
        return self.taken * columns * r_in + self.given * (r_in * r_out * self.area + r_out * rows)

    def ranks(self, energy: float, singular: Sequence[Tensor]) -> Ranks:
        """The ranks that keep a share `energy` of each unfolding's energy."""
        found = [rank_for(values, energy) for values in singular]
        return tuple(found) if self.by_svd else possible(found[0], found[1], self.area)

    def singular(self) -> tuple[Tensor, ...]:
        """The singular values of the weight's unfoldings."""
        weight = self.layer.weight.detach()
        return (torch.linalg.svdvals(weight.flatten(1).double()),) if self.by_svd else spectra(weight)

    def smallest(self) -> int:
        """The MACs at rank one."""
        return self.macs((1,) if self.by_svd else (1, 1))


def candidates(model: nn.Module, size: int = 32) -> list[Candidate]:
    """Every layer of a model that factors could replace, in the order of the forward pass.

    Grouped convolutions, weights that several layers share, and parametrised layers are left out. Runs on the meta
    device too.
    """
    shapes: dict[str, tuple[int, int]] = {}

    def see(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            shapes[name] = _positions(module, given[0]), _positions(module, out)

        return hook

    layers = {name: module for name, module in model.named_modules() if _has_factors(module)}
    hooks = [module.register_forward_hook(see(name)) for name, module in layers.items()]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for each in hooks:
            each.remove()
    owners: dict[int, int] = {}
    for module in model.modules():
        for tensor in module.parameters(recurse=False):
            owners[id(tensor)] = owners.get(id(tensor), 0) + 1
    alone = {name for name, module in layers.items() if owners[id(module.weight)] == 1}
    return [Candidate(name, layers[name], *seen) for name, seen in shapes.items() if name in alone]


def _has_factors(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear  # a subclass (a parametrised layer) may compute something else


def _positions(module: nn.Module, tensor: Tensor) -> int:
    return 1 if isinstance(module, nn.Linear) else math.prod(tensor.shape[-2:])


def choose(model: nn.Module, energy: float | None, macs: float | None) -> tuple[dict[str, Ranks], float]:
    """The ranks of every layer whose factors cost fewer MACs than the layer, and the share of energy that they keep.

    Chosen by `energy`, or by `macs`: then by the largest energy at which the network costs at most that share of its
    MACs. Raises ValueError where nothing shrinks, or the target is out of reach.
    """
    found = candidates(model)
    spectra_of = {each.name: each.singular() for each in found}
    if macs is not None:
        check_target(model, macs)
        energy = _energy_for(found, spectra_of, count(model)[1], macs)
    assert energy is not None, "a plan gives one of the two"
    ranks = {each.name: each.ranks(energy, spectra_of[each.name]) for each in found}
    smaller = {each.name: ranks[each.name] for each in found if each.macs(ranks[each.name]) < each.macs()}
    if not smaller:
        raise ValueError(
            f"at energy={energy:g} no layer's factors cost less than the layer, so nothing would shrink: lower "
            "method.energy, or set method.macs"
        )
    return smaller, energy


def check_target(model: nn.Module, macs: float | None) -> None:
    """Raise ValueError where no layer of the model could shrink at any rank, or not as far as `macs`."""
    found = candidates(model)
    saved = [each.macs() - each.smallest() for each in found if each.smallest() < each.macs()]
    if not saved:
        raise ValueError("no layer's factors cost less than the layer at any rank: there is nothing to factor")
    total = count(model)[1]
    least = (total - sum(saved)) / total
    if macs is not None and macs < least:
        raise ValueError(f"macs={macs:g} is out of reach: at rank one everywhere {least:.3f} of the MACs are left")


def _energy_for(
    found: Sequence[Candidate], spectra_of: Mapping[str, Sequence[Tensor]], total: int, macs: float
) -> float:
    """The largest energy, to 2^-30, at which the whole network costs at most a share `macs` of its `total`."""
    fixed = total - sum(each.macs() for each in found)

    def cost(energy: float) -> int:
        own = (min(each.macs(), each.macs(each.ranks(energy, spectra_of[each.name]))) for each in found)
        return fixed + sum(own)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= macs * total else (low, middle)
    return low


@torch.no_grad()
def factor(model: nn.Module, ranks: Mapping[str, Ranks]) -> nn.Module:
    """A copy of a model in which factors replace the layers of `ranks`: by SVD, or Tucker-2 for a larger kernel."""
    made = copy.deepcopy(model)
    for name, rank in ranks.items():
        layer = made.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d), "ranks are of candidates"
        parts = factors(layer, rank).train(layer.training)
        _fill(parts, layer, rank)
        made.set_submodule(name, parts)
    return made


def _fill(parts: nn.Sequential, layer: nn.Linear | nn.Conv2d, rank: Ranks) -> None:
    """Write the factors of a layer's weight into the layers that replace it."""
    if len(rank) == 1:
        left, right = svd(layer.weight.flatten(1), rank[0])
        weights = [right, left]
    else:
        core, u, v = tucker(layer.weight, rank)
        weights = [v.mT, core, u]
    made = [part for part in parts if isinstance(part, nn.Linear | nn.Conv2d)]
    for part, weight in zip(made, weights, strict=True):
        part.weight.copy_(weight.reshape(part.weight.shape))
        part.weight.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None and made[-1].bias is not None:
        made[-1].bias.copy_(layer.bias)
