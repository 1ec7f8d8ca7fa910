"""The oracle of NAS (nas_golden.json): its recipe of weights by name, and how its summaries are compared."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.data import golden_inputs as gi

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "nas_golden.json").read_text())
DARTS, PROXYLESS = GOLDEN["darts"], GOLDEN["proxyless"]


def seed(name: str, base: int) -> int:
    return (zlib.crc32(name.encode()) + base) % 2**32


def build(entry) -> torch.Tensor:
    """An input of a case, its checksum proved."""
    array = gi.build(entry)
    if "checksum" in entry:
        for field, value in gi.checksum(array).items():
            assert value == pytest.approx(entry["checksum"][field], rel=1e-9, abs=1e-9), (
                "the recipe was rebuilt otherwise"
            )
    return torch.from_numpy(array)


def alpha(name: str, base: int, shape, lo=-1.0, hi=1.0) -> torch.Tensor:
    return torch.from_numpy(gi.tensor(seed(name, base), list(shape), lo, hi))


def value_of(name: str, shape, base: int) -> torch.Tensor:
    """A weight by its golden name."""
    if len(shape) == 4:
        r = math.sqrt(6 / (shape[1] * shape[2] * shape[3]))
        lo, hi = -r, r
    elif len(shape) == 2:
        r = math.sqrt(3 / shape[1])
        lo, hi = -r, r
    elif name.endswith("weight"):
        lo, hi = 0.9, 1.1
    else:
        lo, hi = -0.1, 0.1
    return torch.from_numpy(gi.tensor(seed(name, base), list(shape), lo, hi))


def names_of(module: nn.Module, rename: Callable[[str], str]) -> dict[str, str]:
    """Golden names of a module's weights (alphas left out) by our own: a convolution's is that of the layer."""
    found = {}
    for own, parameter in module.named_parameters():
        if "alpha" in own:
            continue
        name = rename(own)
        found[own] = name.removesuffix(".weight") if parameter.ndim == 4 else name
    return found


def fill(module: nn.Module, base: int, rename: Callable[[str], str], check=None) -> dict[str, str]:
    """Give every weight its golden value, in float64; the golden names by our own."""
    module.double()
    names = names_of(module, rename)
    assert len(set(names.values())) == len(names), "two weights got one name"
    own = dict(module.named_parameters())
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(value_of(theirs, own[ours].shape, base))
    if check is not None:
        lines = sorted(f"{theirs} {'x'.join(map(str, own[ours].shape))}" for ours, theirs in names.items())
        values = np.concatenate([own[ours].detach().numpy().ravel() for ours in names])
        assert len(lines) == check["tensors"]
        assert values.size == check["parameters"]
        assert zlib.crc32("\n".join(lines).encode()) == check["name_shape_crc32"], lines[:40]
        assert math.fsum(values) == pytest.approx(check["value_sum"], rel=1e-9)
        assert math.fsum(values * values) == pytest.approx(check["value_sumsq"], rel=1e-9)
    return names


def same(found: torch.Tensor, wanted, rel: float = 1e-9) -> None:
    """A tensor equals a summary of the file, or a list of it."""
    values = found.detach().double().numpy()
    if isinstance(wanted, list):
        wanted = np.asarray(wanted)
        assert values == pytest.approx(wanted, rel=rel, abs=rel * max(1.0, float(np.abs(wanted).max())))
        return
    if "shape" in wanted:
        assert list(values.shape) == wanted["shape"]
    sums, slack = gi.checksum(values), rel * math.sqrt(values.size * wanted["sumsq"]) + 1e-12
    assert sums["sumsq"] == pytest.approx(wanted["sumsq"], rel=rel, abs=1e-12)
    assert sums["sum"] == pytest.approx(wanted["sum"], abs=slack)
    assert sums["weighted"] == pytest.approx(wanted["weighted"], abs=slack)
    first = next((wanted[name] for name in wanted if name.startswith("first")), [])
    assert values.ravel()[: len(first)] == pytest.approx(
        first, rel=rel, abs=rel * (abs(values).max() if values.size else 1)
    )


def same_total(tensors, wanted, rel: float = 1e-9) -> None:
    """Sum and sum of squares over many tensors."""
    values = np.concatenate([tensor.detach().double().numpy().ravel() for tensor in tensors])
    assert math.fsum(values * values) == pytest.approx(wanted["sumsq"], rel=rel)
    assert math.fsum(values) == pytest.approx(wanted["sum"], abs=rel * math.sqrt(values.size * wanted["sumsq"]))
