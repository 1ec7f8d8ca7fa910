"""Whether two modules are the same network: the same answers to the bit, the same ties; and if not, why."""

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
    "store what the network needs (register_buffer(name, tensor) without persistent=False), or have the builder make "
    "it from its arguments"
)


def agree(module: nn.Module, twin: nn.Module) -> None:
    """Raise ValueError, with what differs, unless `twin` (on the CPU) gives exactly the answers of `module`, with the
    same tensors tied.

    `twin` is moved to the device and into the memory format of `module`. Moves generators: the caller keeps them.
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
        except Exception as error:  # whatever a half-restored network may raise: it does not agree
            raise ValueError(
                f"loaded again it fails ({type(error).__name__}: {error}){_because(module, twin)}"
            ) from error
    if not _same(ours, theirs):
        raise ValueError(f"loaded again it gives other answers{_because(module, twin)}")
    if _ties(module) != _ties(twin):
        raise ValueError(f"loaded again it would train otherwise{_because(module, twin)}")


def _answers(module: nn.Module, images: Tensor) -> list[Any]:
    torch.default_generator.manual_seed(SEED)
    if images.is_cuda:  # not otherwise: before CUDA is there it would be queued, and seed what is computed later
        torch.cuda.manual_seed_all(SEED)
    with evaluating(module), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return tree_leaves(module(images.clone()))


def _lay_out_like(module: nn.Module, twin: nn.Module) -> None:
    """Give every tensor of `twin` the strides of its counterpart: another layout may be summed in another order."""
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
    """Whether two attributes are alike as far as they are data: tensors to the bit, numbers and texts; code is not
    compared."""
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
    """The groups of names that mean one tensor."""
    names: dict[int, set[str]] = {}
    for name, tensor in _tensors(module):
        names.setdefault(id(tensor), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def _because(module: nn.Module, twin: nn.Module) -> str:
    """What differs between the two, and the remedy; words for the end of a sentence."""
    found = list(_differences(module, twin))
    return f": {'; '.join(found)}. Remedy: {REMEDY}" if found else f", though nothing that is data differs. {REMEDY}"


def _differences(module: nn.Module, twin: nn.Module) -> Iterator[str]:
    parts, others = dict(module.named_modules()), dict(twin.named_modules())
    for name in [name for name in parts if name not in others] + [name for name in others if name not in parts]:
        yield f"the part {name} is in one of them alone"
    for name, part in parts.items():
        if name in others:
            yield from _differing_attributes(name, part, others[name])
    for group in sorted(map(sorted, _ties(module) ^ _ties(twin))):
        yield f"{' and '.join(group)} are tied in one of them alone"


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
