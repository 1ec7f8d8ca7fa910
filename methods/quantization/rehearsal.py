"""Whether a model can be trained for INT8, seen before any training."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.deploy.points import points
from benchmark.plan.deployment import EngineError
from benchmark.plan.stage import Network
from benchmark.plan.task import Model
from benchmark.vision.network import build_model
from methods.quantization.fake import FakeQuantized


def rehearse(model: Model, classes: int, scales: Any, layout: Any, averaging: float) -> None:
    """Find the engine's places in a new model, and build the network that would be trained (`FakeQuantized` says what
    the last three are). Raises ValueError."""
    torch.manual_seed(0)
    fresh = build_model(model, classes)
    nothing = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    network = Network(model.builder, {**model.kwargs, "classes": classes}, fresh.state_dict(), *nothing)
    try:
        FakeQuantized(fresh, points(network), scales, layout, averaging)
    except (EngineError, ValueError) as error:
        raise ValueError(f"model {model.name} cannot be trained for INT8: {error}") from error
