"""Between modules and `Network` artifacts: build from a dotted name, freeze into tensors, load back, shrunk shapes
included."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Network
from benchmark.plan.task import Model, Recipe


def build(builder: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The fresh module that `module:function` makes from `kwargs`, initialised from torch's global generator."""
    module, _, function = builder.partition(":")
    return cast(nn.Module, getattr(importlib.import_module(module), function)(**kwargs))


def build_model(model: Model, classes: int) -> nn.Module:
    """A fresh network of the zoo with `classes` outputs."""
    return build(model.builder, {**model.kwargs, "classes": classes})


def freeze(module: nn.Module, model: Model, classes: int, recipe: Recipe) -> Network:
    """The module as data: its tensors (copied to host memory), its builder, and the normalisation its recipe trained
    it with."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    return Network(
        builder=model.builder,
        kwargs={**model.kwargs, "classes": classes},
        tensors=tensors,
        mean=recipe.mean,
        std=recipe.std,
    )


def load(network: Network) -> nn.Module:
    """The module of a `Network`, in eval mode on the CPU; layers take the shapes of the tensors, so shrunk networks
    load as they are.

    Raises ValueError where tensors and module do not fit: a tensor without a place, or a place without a tensor.
    """
    with torch.device("meta"):
        module = build(network.builder, network.kwargs)
    take_shapes(module, network.tensors)
    module.to_empty(device="cpu")
    try:
        module.load_state_dict(dict(network.tensors))
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ValueError(f"the stored tensors do not fit {network.builder}: {words}") from error
    return module.eval()


def take_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every layer the sizes of its stored tensors, in place; only widths can differ, never the kind or number of
    layers."""
    for name, layer in module.named_modules():
        weight = tensors.get(f"{name}.weight")
        if weight is None:
            continue
        if isinstance(layer, nn.Conv2d):
            depthwise = 1 < layer.groups == layer.in_channels == layer.out_channels
            layer.out_channels = weight.shape[0]
            layer.groups = weight.shape[0] if depthwise and weight.shape[1] == 1 else layer.groups
            layer.in_channels = weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape[0], weight.shape[1]
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.num_features = weight.shape[0]
        else:
            continue
        for field, stored in _own_tensors(layer, name, tensors):
            if stored.shape != getattr(layer, field).shape:
                _replace(layer, field, torch.empty_like(stored, device="meta"))


def _own_tensors(layer: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    own = [field for field, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))]
    return [(field, tensors[f"{name}.{field}"]) for field in own if f"{name}.{field}" in tensors]


def _replace(layer: nn.Module, field: str, tensor: Tensor) -> None:
    if isinstance(getattr(layer, field), nn.Parameter):
        setattr(layer, field, nn.Parameter(tensor))
    else:
        layer.register_buffer(field, tensor)


def trust(*builders: str) -> None:
    """Temporary: replaced when wt-v is merged."""
