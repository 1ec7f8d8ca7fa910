"""Scores of untrained networks (larger is better), and how several scores are joined to a ranking."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def synflow(network: nn.Module, image: Sequence[int] = (3, 32, 32)) -> float:
    """ln of the synaptic flow, the sum over convolution and linear weights of |w dR/dw|, in float64.

    R is the sum of all logits for one image of ones, with every parameter replaced by its absolute value and every
    batch norm by the identity. -inf where nothing flows. Source: Tanaka et al. 2020, used as a score of networks as in
    Abdelfattah et al. 2021.
    """
    flow = copy.deepcopy(network).double()
    for name, layer in list(flow.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            flow.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.abs_()
    layers = [layer for layer in flow.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    weights = [layer.weight for layer in layers]
    ones = torch.ones(1, *image, dtype=torch.float64, device=weights[0].device)
    gradients = torch.autograd.grad(flow(ones).sum(), weights, allow_unused=True)
    total = sum(
        (weight.detach() * gradient).abs().sum()
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    score = float(total)
    return math.log(score) if score > 0 else -math.inf


RECTIFIERS = {
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
    torch.ops.aten.hardtanh.default,  # ReLU6
    torch.ops.aten.hardtanh_.default,
    torch.ops.aten.clamp_min.default,
}


class _Codes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its hook untyped
    """Adds up, over every rectifier that runs (module or function), the number of units on which two images agree."""

    def __init__(self, images: int, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # same
        self.agreement = torch.zeros(images, images, dtype=torch.float64, device=device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RECTIFIERS:
            code = (args[0] > 0).flatten(1).float()  # before the call, which may run in place
            same = code @ code.T + (1 - code) @ (1 - code).T  # exact below 2^24 units
            self.agreement += same.double()
        return func(*args, **(kwargs or {}))


def naswot(network: nn.Module, images: Tensor) -> float:
    """ln |det K|, where K_ij is the number of rectifier units that are on, or off, for both images i and j.

    Computed in train mode from one batch. -inf where two images have the same code. Do not compare scores of different
    numbers of images. Source: Mellor et al. 2021, second version; counted as in NASLib (every rectifier that runs, dead
    branches too).
    """
    found = agreement(network, images)
    alike = found == found.diagonal()
    if int(alike.sum()) > len(images):  # a determinant of zero, which rounding would hide
        return -math.inf
    return float(torch.linalg.slogdet(found).logabsdet)


def agreement(network: nn.Module, images: Tensor) -> Tensor:
    """K of `naswot`, float64 [n, n]. Running statistics do not change."""
    counted, codes = copy.deepcopy(network).train(), _Codes(len(images), images.device)
    # autocast would round the compared values
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False), codes:
        counted(images)
    return codes.agreement


def ranks(scores: Sequence[float]) -> list[float]:
    """1 for the worst to m for the best; ties share the mean of their ranks; NaN counts among the worst."""
    known = [-math.inf if math.isnan(score) else score for score in scores]
    order = sorted(range(len(known)), key=known.__getitem__)
    found = [0.0] * len(known)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and known[order[last + 1]] == known[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            found[place] = 1 + (first + last) / 2
        first = last + 1
    return found


def joined(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """For every candidate the sum over the proxies of ln(rank / m): one bad rank weighs more than one good rank.

    Source: AZ-NAS (Lee and Ham 2024).
    """
    columns = [ranks(own) for own in scores.values()]
    count = len(columns[0])
    return [math.fsum(math.log(column[number] / count) for column in columns) for number in range(count)]


def best(scores: Mapping[str, Sequence[float]], macs: Sequence[int]) -> int:
    """The candidate with the largest joined score; on a tie the one with the fewest MACs, then the first.

    Raises ValueError where no candidate has a finite score.
    """
    if not any(all(math.isfinite(own[number]) for own in scores.values()) for number in range(len(macs))):
        raise ValueError(f"none of {len(macs)} candidates has finite scores")
    together = joined(scores)
    return max(range(len(macs)), key=lambda number: (together[number], -macs[number], -number))
