"""Architecture steps by REINFORCE: sampled paths, their accuracies as rewards, no gradient through any network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.nas.proxyless.gates import Choice, stacked

NEW_WEIGHT = 0.99
"""The share of the baseline that each step replaces by its own mean reward (ProxylessNAS's 'decay')."""


def reward(accuracy: Tensor, cost: float | None, reference: float, exponent: float) -> Tensor:
    """Accuracy (0 to 1) times (reference / cost)^exponent; only the accuracy where there is no cost."""
    return accuracy if cost is None else accuracy * (reference / cost) ** exponent


def baseline_after(baseline: Tensor | None, rewards: Tensor) -> Tensor:
    """The baseline for a step's rewards: at first their mean; later the old baseline, moved towards their mean."""
    return rewards.mean() if baseline is None else baseline + NEW_WEIGHT * (rewards.mean() - baseline)


def gradients(
    alphas: Sequence[Tensor], samples: Sequence[Sequence[Choice]], rewards: Tensor, baseline: Tensor
) -> list[Tensor]:
    """The mean over the samples of (reward - baseline) d(-ln p)/dalpha, one array per edge. Never waits for the device.

    Source: ProxylessNAS, equation 5, according to its search code.
    """
    widest = max(map(len, alphas))
    host = torch.zeros(len(samples), len(alphas), widest)
    for number, sample in enumerate(samples):
        for row, choice in enumerate(sample):
            host[number, row, choice.active] = 1
    chosen = (host.pin_memory() if rewards.is_cuda else host).to(rewards.device, non_blocking=True)
    p = stacked([alpha.detach() for alpha in alphas], widest).softmax(-1)
    weights = (rewards - baseline)[:, None, None]
    learned = (weights * (p - chosen.to(p.dtype))).mean(0)
    return [row[: len(alpha)] for row, alpha in zip(learned, alphas, strict=True)]
