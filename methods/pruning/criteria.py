"""How much a filter is worth: six criteria, a number per filter, the lowest go. Formulas as in NNI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.plan.task import Recipe
from benchmark.vision.data import Batch
from benchmark.vision.training import loss_of
from methods.pruning.params import Scoring
from methods.pruning.trace import follow


def l1(weight: Tensor) -> Tensor:
    """Sum of absolute values of each filter; [filters, ...] to [filters]. Source: Li et al. 2017."""
    return weight.flatten(1).abs().sum(1)


def l2(weight: Tensor) -> Tensor:
    """Euclidean norm of each filter; [filters, ...] to [filters]."""
    return weight.flatten(1).square().sum(1).sqrt()


def fpgm(weight: Tensor) -> Tensor:
    """Sum of each filter's distances to all filters of its layer; [filters, ...] to [filters].

    The distance-sum form of the geometric median, without a norm filter before it, as NNI has it. Source: He et al.
    2019, equation 4.
    """
    flat = weight.flatten(1)
    # distances by matrix product would lose half the digits
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Sum over a filter's elements of (weight x gradient)^2, squared before summing; [filters, ...] to [filters].

    Source: Molchanov et al. 2019, equation 8, individual contributions.
    """
    return (weight * gradient).square().flatten(1).sum(1)


def by_weights(weights: Mapping[str, Tensor], criterion: str) -> dict[str, Tensor]:
    """Scores by a criterion that needs no data: 'l1', 'l2' or 'fpgm'."""
    formula = {"l1": l1, "l2": l2, "fpgm": fpgm}[criterion]
    return {name: formula(weight.detach()) for name, weight in weights.items()}


def collect(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], recipe: Recipe, scoring: Scoring
) -> dict[str, Tensor]:
    """Scores of `layers` from training steps, as NNI takes them: `model` is trained on all `batches`, in place, by
    the recipe's plain loss and rate; the first `scoring.batches` of them are looked at.

    taylorfo sums over steps, with the weights before or after the step whose gradient they meet. apoz is the share of
    activations above zero (1 - APoZ, so that low is dispensable) and activation_mean their mean: of ReLU on the
    convolution's raw output in train mode, or on that of the batch norm that directly follows it, where one does.
    """
    model.train()
    loss = loss_of(recipe)
    optimiser = torch.optim.SGD(model.parameters(), **sgd(recipe))
    sums: dict[str, Tensor] = {}
    seen = dict.fromkeys(layers, 0)
    weights = {name: cast(Tensor, model.get_submodule(name).weight) for name in layers}
    sites = _sites(model, layers, scoring)
    for number, (images, labels, index) in enumerate(batches):
        counted = number < scoring.batches
        with _watched(sites if counted else {}, sums, seen, scoring):
            value, _ = loss(model, images, labels, index)
        optimiser.zero_grad()
        value.backward()
        if counted and scoring.criterion == "taylorfo" and scoring.taylor_weights == "pre":
            _add_taylor(sums, weights)
        optimiser.step()
        if counted and scoring.criterion == "taylorfo" and scoring.taylor_weights == "post":
            _add_taylor(sums, weights)
    if scoring.criterion == "taylorfo":
        return sums
    return {name: sums[name] / seen[name] for name in layers}


def sgd(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe's optimiser."""
    return {
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "nesterov": recipe.nesterov,
    }


def _sites(model: nn.Module, layers: Sequence[str], scoring: Scoring) -> dict[str, nn.Module]:
    """The modules whose outputs are looked at, by the convolution they speak for."""
    if scoring.criterion == "taylorfo":
        return {}
    after = follow(model).normalised if scoring.activation_site == "post_bn" else {}
    return {name: model.get_submodule(after.get(name, name)) for name in layers}


@contextmanager
def _watched(
    sites: Mapping[str, nn.Module], sums: dict[str, Tensor], seen: dict[str, int], scoring: Scoring
) -> Iterator[None]:
    """Add up what the sites give, per channel, while the context lasts."""
    activate = functional.relu if scoring.activation == "relu" else functional.relu6

    def watch(name: str, out: Tensor) -> None:
        active = activate(out.detach())
        taken = (active > 0) if scoring.criterion == "apoz" else active
        sums[name] = sums.get(name, 0) + taken.sum((0, 2, 3), dtype=torch.float64)
        seen[name] += out.numel() // out.shape[1]

    handles = [
        module.register_forward_hook(lambda _module, _inputs, out, name=name: watch(name, out))
        for name, module in sites.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_taylor(sums: dict[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            if weight.grad is None:
                raise ValueError(f"{name} has no gradient (frozen, or no part of the loss): taylorfo cannot score it")
            sums[name] = sums.get(name, 0) + taylor(weight, weight.grad)
