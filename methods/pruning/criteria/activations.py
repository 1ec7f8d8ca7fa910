"""The common part of criteria of activations: the place where they look, and their mean over training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.pruning.criteria.steps import train
from methods.pruning.criteria.subject import Scores, Subject
from methods.pruning.trace import follow

Activation = Literal["relu", "relu6"]
Site = Literal["pre_bn", "post_bn"]

_FUNCTIONS = {"relu": functional.relu, "relu6": functional.relu6}


def mean(subject: Subject, measure: Callable[[Tensor], Tensor], activation: Activation, site: Site) -> Scores:
    """The mean of `measure` (elementwise) of each filter's activations, over all images and positions of the steps.

    `activation` is applied in train mode to the convolution's raw output (`pre_bn`, as in NNI), or to the output of the
    batch norm that directly follows it, where there is one (`post_bn`). Sums are in float64.
    """
    sums: Scores = {}
    seen = dict.fromkeys(subject.layers, 0)

    def watch(name: str, out: Tensor) -> None:
        taken = measure(_FUNCTIONS[activation](out.detach()))
        sums[name] = sums.get(name, 0) + taken.sum((0, 2, 3), dtype=torch.float64)
        seen[name] += out.numel() // out.shape[1]

    with _watched(_sites(subject, site), watch):
        train(subject)
    return {name: sums[name] / seen[name] for name in subject.layers}


def _sites(subject: Subject, site: Site) -> dict[str, nn.Module]:
    """The modules whose outputs are observed, by the convolution that they stand for."""
    after = follow(subject.model).normalised if site == "post_bn" else {}
    return {name: subject.model.get_submodule(after.get(name, name)) for name in subject.layers}


@contextmanager
def _watched(sites: Mapping[str, nn.Module], watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    handles = [
        module.register_forward_hook(lambda _module, _inputs, out, name=name: watch(name, out))
        for name, module in sites.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
