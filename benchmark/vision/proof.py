"""Whether two modules are the same network: the same answers to the bit, the same ties and training; if not, why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmark.vision.modes import evaluating
from benchmark.vision.switches import switches

IMAGES, SIZE, SEED = 4, 32, 2021

REMEDY = (
    "store what the network needs (register_buffer(name, tensor) without persistent=False), or let the builder make "
    "it from its arguments"
)


def agree(module: nn.Module, twin: nn.Module) -> None:
    """Raise ValueError, with the differences, unless `twin` gives exactly the answers and has the ties of `module`.

    `twin` (on the CPU) is moved to the device and into the memory format of `module`. The check moves the random
    generators: the caller saves and restores them.
    """
    place = next((tensor for tensor in module.parameters()), torch.empty(0))
    twin.to(place.device)
    _lay_out_like(module, twin)
    images = torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED))
    images = images.to(place.device, place.dtype)
    with switches(tf32=False, cudnn_benchmark=False, deterministic=True):
        ours = _answers(module, images)
        try:
            theirs = _answers(twin, images)
        except Exception as error:  # a half-restored network may raise anything: it does not agree
            raise ValueError(
                f"the loaded network fails ({type(error).__name__}: {error}){_because(module, twin)}"
            ) from error
    if not _same(ours, theirs):
        raise ValueError(f"the loaded network gives other answers{_because(module, twin)}")
    if _ties(module) != _ties(twin) or _trained(module) != _trained(twin) or _numbers(module) != _numbers(twin):
        raise ValueError(f"the loaded network would train differently{_because(module, twin)}")


def _answers(module: nn.Module, images: Tensor) -> list[Any]:
    torch.default_generator.manual_seed(SEED)
    if images.is_cuda:  # on CUDA only: before CUDA is initialised the seed would be queued, and seed later computations
        torch.cuda.manual_seed_all(SEED)
    with evaluating(module), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return tree_leaves(module(images.clone()))


def _lay_out_like(module: nn.Module, twin: nn.Module) -> None:
    """Give every tensor of `twin` the strides of its counterpart, because another layout may sum in another order."""
    counterparts = dict(_tensors(module))
    for name, tensor in _tensors(twin):
        other = counterparts.get(name)
        if other is not None and other.shape == tensor.shape and other.stride() != tensor.stride():
            laid_out = torch.empty_strided(tensor.shape, other.stride(), dtype=tensor.dtype, device=tensor.device)
            tensor.data = laid_out.copy_(tensor.data)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _same(one: Any, other: Any) -> bool:
    """Whether the data in two attributes is the same: tensors to the bit, numbers and texts; code is not compared."""
    ours, theirs = tree_leaves(one), tree_leaves(other)
    return len(ours) == len(theirs) and all(_same_leaf(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        one, other = one.detach().cpu(), other.detach().cpu()
        return bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):  # held in a plain list or dict
        return _same(dict(_tensors(one)), dict(_tensors(other)))
    if isinstance(one, str | int | float | None) and isinstance(other, str | int | float | None):
        return bool(one == other) or (one != one and other != other)
    return isinstance(one, Tensor) == isinstance(other, Tensor)


def _ties(module: nn.Module) -> set[frozenset[str]]:
    """The groups of names that refer to one tensor."""
    names: dict[int, set[str]] = {}
    for name, tensor in _tensors(module):
        names.setdefault(id(tensor), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def _trained(module: nn.Module) -> dict[str, bool]:
    """Which parameters a later stage would train."""
    return {name: parameter.requires_grad for name, parameter in module.named_parameters(remove_duplicate=False)}


def _numbers(module: nn.Module) -> dict[str, Any]:
    """The numbers and texts that modules hold beside their tensors, such as a dropout's share or a norm's momentum."""
    plain = set(vars(nn.Module()))
    return {
        f"{name}.{field}": value
        for name, part in module.named_modules()
        for field, value in vars(part).items()
        if field not in plain and isinstance(value, str | int | float)
    }


def _because(module: nn.Module, twin: nn.Module) -> str:
    """The differences between the two, and the remedy, as the end of a sentence."""
    found = list(_differences(module, twin))
    return f": {'; '.join(found)}. Remedy: {REMEDY}" if found else f", though all data agrees. Remedy: {REMEDY}"


def _differences(module: nn.Module, twin: nn.Module) -> Iterator[str]:
    parts, others = dict(module.named_modules()), dict(twin.named_modules())
    for name in [name for name in parts if name not in others] + [name for name in others if name not in parts]:
        yield f"only one of them has the part {name}"
    for name, part in parts.items():
        if name in others:
            yield from _differing_attributes(name, part, others[name])
    ours, theirs = _trained(module), _trained(twin)
    for name in sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]):
        yield f"{name} is {'trained' if ours[name] else 'frozen'} in one of them and not in the other"
    for group in sorted(map(sorted, _ties(module) ^ _ties(twin))):
        yield f"{' and '.join(group)} are tied in only one of them"


def _differing_attributes(name: str, part: nn.Module, other: nn.Module) -> Iterator[str]:
    place = f"{name}." if name else ""
    if type(part) is not type(other):
        yield f"{name or 'the network'} is a {type(part).__name__}, not a {type(other).__name__}"
        return
    lost = part._non_persistent_buffers_set
    for field, buffer in part.named_buffers(recurse=False):
        if not _same(buffer, getattr(other, field, None)):
            yield f"the {'non-persistent ' if field in lost else ''}buffer {place}{field} differs"
    plain = set(vars(nn.Module()))
    for field in sorted((vars(part).keys() | vars(other).keys()) - plain):
        if not _same(vars(part).get(field), vars(other).get(field)):
            yield f"the plain attribute {place}{field} differs"
