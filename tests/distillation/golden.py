"""The golden files as tensors, networks filled with their values, and what may differ by how much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmark.vision.models.repdistiller import mobilenetv2, resnet, resnet50, shufflev1, shufflev2, vgg, wrn
from tests.data import golden_inputs

DATA = Path(__file__).parent.parent / "data"
OLDER = json.loads((DATA / "distillation_golden.json").read_text())
NEWER = json.loads((DATA / "newer_golden.json").read_text())
CASES = {**OLDER["cases"], **NEWER["cases"]}
MODULES = (mobilenetv2, resnet, resnet50, shufflev1, shufflev2, vgg, wrn)
TARGETS = torch.tensor(OLDER["pairs"]["_recipe"]["targets"])

FLOAT64, NETWORKS, FLOAT32 = 1e-7, 1e-6, 1e-4


def case(name: str, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """The inputs of a case, which ask for gradients, and its modules' tensors."""
    found = {}
    for key, array in golden_inputs.case_arrays({"cases": CASES}, name).items():
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        found[key] = tensor.to(dtype).requires_grad_() if tensor.is_floating_point() else tensor
    return found


def expected(name: str):
    return CASES[name]["expected"]


def take(module: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """The module in the tensors' type and train mode, with every parameter given by name."""
    dtype = next(iter(tensors.values())).dtype
    module.to(dtype).train()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[name])
    return module


def assert_close(found, wanted, tolerance: float = FLOAT64) -> None:
    """Compare a tensor or number with a number, a list, or one of the two kinds of summary of a tensor."""
    if isinstance(wanted, dict) and "weighted" in wanted:
        for name, value in golden_inputs.checksum(found.detach().numpy()).items():
            assert value == _about(wanted[name], tolerance)
    elif isinstance(wanted, dict):
        x = found.detach().double().flatten()
        size = wanted["abs_sum"]
        assert float(x.sum()) == _about(wanted["sum"], tolerance, size)
        assert float(x.abs().sum()) == _about(size, tolerance)
        assert float(x.pow(2).sum()) == _about(wanted["sumsq"], tolerance)
        largest = wanted["sumsq"] ** 0.5
        for one, other in zip(x[:3].tolist(), wanted["first3"], strict=True):
            assert one == _about(other, tolerance, largest)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other, tolerance)
    else:
        assert (found.item() if isinstance(found, torch.Tensor) else found) == _about(wanted, tolerance)


class _about:  # reads as pytest.approx does
    """Equal within a tolerance relative to the wanted value or, where that is larger, to a tenth of a given size."""

    def __init__(self, wanted: float, tolerance: float, size: float = 0.0) -> None:
        self.wanted, self.bound = wanted, tolerance * max(abs(wanted), size / 10)

    def __eq__(self, found) -> bool:
        return abs(found - self.wanted) <= self.bound

    __hash__ = None

    def __repr__(self) -> str:
        return f"{self.wanted!r} +- {self.bound:.2g}"


def network(name: str) -> nn.Module:
    """A network of the zoo by its published name."""
    wanted = name if hasattr(resnet, name) or hasattr(vgg, name) or hasattr(wrn, name) else name.lower()
    return next(getattr(module, wanted) for module in MODULES if hasattr(module, wanted))(100)


def filled(module: nn.Module) -> nn.Module:
    """The module in float64, every parameter with the golden value of its kind and shape."""
    kinds = {nn.Conv2d: "conv", nn.ConvTranspose2d: "conv", nn.Linear: "linear", nn.BatchNorm2d: "bn"}
    module.double()
    with torch.no_grad():
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if type(part) in kinds:  # a variance of VID keeps its first value
                    value = golden_inputs.model_param(f"{kinds[type(part)]}_{name}", list(parameter.shape))
                    parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return module


def images(batch: int = 4) -> torch.Tensor:
    return torch.from_numpy(golden_inputs.model_input(batch))
