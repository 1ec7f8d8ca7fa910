"""The builder of a low-rank factorization's networks, in which products of smaller layers replace some layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from benchmark.vision.builders import build


def factored(builder: str, arguments: Mapping[str, Any], ranks: Mapping[str, Sequence[int]]) -> nn.Module:
    """The network of another builder with the layers that `ranks` names replaced by `factors`."""
    network = build(builder, arguments)
    for name, rank in ranks.items():
        network.set_submodule(name, factors(network.get_submodule(name), rank))
    return network


def factors(layer: nn.Module, rank: Sequence[int]) -> nn.Sequential:
    """New layers with the shapes of a factorization, on the device of `layer`.

    One rank r: a linear layer becomes in -> r -> out, and so does a 1x1 convolution, with its stride in the first
    factor. Two ranks (r_out, r_in), Tucker-2: a 1x1 convolution in -> r_in, a core r_in -> r_out with the kernel,
    stride and padding of `layer`, a 1x1 convolution r_out -> out. The last factor has the bias. Raises ValueError for
    any other layer or rank.
    """
    has_bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear) and len(rank) == 1:
        like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        first = nn.Linear(layer.in_features, rank[0], bias=False, **like)
        return nn.Sequential(first, nn.Linear(rank[0], layer.out_features, bias=has_bias, **like))
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        raise ValueError(f"a {type(layer).__name__} cannot be factored: only linear layers and dense convolutions can")
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    own: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    if len(rank) == 1 and layer.kernel_size == (1, 1):
        narrow = nn.Conv2d(layer.in_channels, rank[0], 1, bias=False, **own, **like)
        return nn.Sequential(narrow, nn.Conv2d(rank[0], layer.out_channels, 1, bias=has_bias, **like))
    if len(rank) != 2:
        raise ValueError(f"a convolution with a kernel of {layer.kernel_size} takes two ranks, not {len(rank)}")
    r_out, r_in = rank
    return nn.Sequential(
        nn.Conv2d(layer.in_channels, r_in, 1, bias=False, **like),
        nn.Conv2d(r_in, r_out, (layer.kernel_size[0], layer.kernel_size[1]), bias=False, **own, **like),
        nn.Conv2d(r_out, layer.out_channels, 1, bias=has_bias, **like),
    )
