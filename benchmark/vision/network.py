"""Turns modules into `Network` artifacts and back, shrunk shapes included, and proves that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmark.plan.stage import Network
from benchmark.plan.task import Model, Recipe
from benchmark.vision.builders import BuilderError, build, build_model, trust
from benchmark.vision.proof import agree

__all__ = ["BuilderError", "build", "build_model", "freeze", "freeze_like", "load", "prove", "take_shapes", "trust"]

LOADING_SEED = 7_340_033
"""A fixed seed, so that two loads of one file agree even where a builder draws values that the file does not hold. It
is not the seed of a training."""


def freeze(module: nn.Module, model: Model, classes: int, recipe: Recipe) -> Network:
    """The module as data: its tensors (copied to host memory), its builder, and the normalisation of its recipe.

    Raises ValueError unless the network, loaded again, computes exactly what `module` computes; see `prove`. This takes
    two forward passes and a build, so a stage calls it off the meter.
    """
    network = _as_data(module, model, classes, recipe)
    _prove(module, network, model.name)
    return network


def freeze_like(module: nn.Module, like: Network) -> Network:
    """As `freeze`, for a module that came from `like`: the result has the builder and the normalisation of `like`."""
    network = replace(like, tensors=_tensors_of(module, like.builder))
    _prove(module, network, like.builder)
    return network


def prove(module: nn.Module, model: Model, classes: int) -> None:
    """Raise ValueError unless the module, stored and loaded again, gives exactly the same answers.

    The message names what was lost, and the remedy. The check runs on the module's device, in its memory and number
    format, in eval mode, without TF32 and autocast, for a few fixed images of 32 x 32 pixels. Generators, modes and
    switches keep their state. Ties, and which parameters a later stage would train, must agree too. Call this before a
    long training, off the meter; `freeze` checks again because training can change the state. `model` comes from the
    present command, so its builder is trusted.
    """
    nothing = Recipe(name="proof", epochs=1, batch_size=1, lr=1, mean=(0, 0, 0), std=(1, 1, 1))
    _prove(module, _as_data(module, model, classes, nothing), model.name)


def _as_data(module: nn.Module, model: Model, classes: int, recipe: Recipe) -> Network:
    tensors = _tensors_of(module, model.name)
    kwargs = {**model.kwargs, "classes": classes}
    return Network(builder=model.builder, kwargs=kwargs, tensors=tensors, mean=recipe.mean, std=recipe.std)


def _tensors_of(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Copies of a module's tensors in host memory. Raises ValueError where its state is more than tensors."""
    state = module.state_dict()
    foreign = [field for field, value in state.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ValueError(f"{name} cannot be stored: {', '.join(foreign)} of its state dict are not tensors")
    return {field: tensor.detach().cpu().clone().contiguous() for field, tensor in state.items()}


def _prove(module: nn.Module, network: Network, name: str) -> None:
    trust(network.builder)
    try:
        with _generators_kept():
            agree(module, load(network))
    except (ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be restored exactly from its artifact: {words}") from error


def load(network: Network) -> nn.Module:
    """The module of a `Network`, in eval mode on the CPU.

    Layers take the shapes and number formats of the tensors, so shrunk networks load as they are. The builder really
    runs, so the module has everything that the builder makes beside the stored tensors (other buffers, ties, plain
    attributes). No global generator moves. Raises ValueError where tensors and module do not fit (a tensor without a
    place, or a place without a tensor), and BuilderError where the builder may not run.
    """
    with _generators_kept(), torch.device("cpu"):
        torch.default_generator.manual_seed(LOADING_SEED)
        module = build(network.builder, network.kwargs)
    take_shapes(module, network.tensors)
    try:
        module.load_state_dict(dict(network.tensors))
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ValueError(f"the stored tensors do not fit {network.builder}: {words}") from error
    return module.eval()


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Torch's global generators may draw inside; afterwards they have their old state."""
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # untyped in torch
    devices = range(torch.cuda.device_count()) if ready else ()
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


def take_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every layer the sizes and the number format of its stored tensors, in place; values are left undefined.

    Only widths can differ, never the kind or number of layers. Frozen parameters stay frozen, and tied tensors stay
    tied. Raises ValueError where tied tensors would get different shapes.
    """
    fresh: dict[int, Tensor] = {}
    kept: list[Tensor] = []  # an id() is unique only while its tensor lives
    for name, layer in module.named_modules():
        # a batch norm without weights has running means
        known = _take_sizes(layer, tensors.get(f"{name}.weight", tensors.get(f"{name}.running_mean")))
        for field, own in _own_tensors(layer):
            stored = tensors.get(f"{name}.{field}" if name else field)
            if stored is None:
                continue
            shape = stored.shape if known else own.shape
            new = fresh.get(id(own))
            if new is not None and new.shape != shape:
                raise ValueError(f"{name}.{field} is tied to a tensor that is stored with another shape")
            if new is None and (shape, stored.dtype) != (own.shape, own.dtype):
                kept.append(own)
                fresh[id(own)] = _empty_like(own, shape, stored.dtype)
    for layer in module.modules():
        for field, own in _own_tensors(layer):
            if id(own) in fresh:
                _put(layer, field, fresh[id(own)])


def _take_sizes(layer: nn.Module, weight: Tensor | None) -> bool:
    """Set the sizes of a layer whose width may differ from its weight; returns whether it is such a layer."""
    if weight is None:
        return False
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
        return False
    return True


def _own_tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = layer.named_parameters(recurse=False, remove_duplicate=False)
    return [*parameters, *layer.named_buffers(recurse=False, remove_duplicate=False)]


def _empty_like(own: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    empty = torch.empty(shape, dtype=dtype, device=own.device)
    return nn.Parameter(empty, requires_grad=own.requires_grad) if isinstance(own, nn.Parameter) else empty


def _put(layer: nn.Module, field: str, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        setattr(layer, field, tensor)
    else:
        layer.register_buffer(field, tensor, persistent=field not in layer._non_persistent_buffers_set)
