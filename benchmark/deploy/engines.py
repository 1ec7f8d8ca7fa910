"""Engines: something that maps a batch of normalised images to logits, in a precision, on a device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmark.plan.stage import Network
from benchmark.vision.network import load


class EngineError(Exception):
    """An engine cannot run a network as asked; the message says why."""


class TorchEngine:
    """PyTorch in eager mode, channels last, inference mode. fp32 is strict: TF32 stays off."""

    name = "torch"

    def __init__(self, network: Network, precision: str, device: str) -> None:
        kinds = {"fp32": torch.float32, "fp16": torch.float16}
        if precision not in kinds:
            raise EngineError(f"the torch engine has no {precision}: choose deploy_precision=fp32 or fp16")
        self.precision = precision
        self.device = device
        self._dtype = kinds[precision]
        self._module = load(network).to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks dtype beside memory_format

    def prepare(self, images: Tensor) -> Tensor:
        """A batch as this engine wants it: on the device, in its number format and memory layout."""
        return images.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, prepared: Tensor) -> Tensor:
        """Logits [n, classes] of a prepared batch."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return self._module(prepared)  # type: ignore[no-any-return] # nn.Module calls are untyped


Engine = TorchEngine

_ENGINES: dict[str, Callable[[Network, str, str], Engine]] = {"torch": TorchEngine}


def open_engine(name: str, network: Network, precision: str, device: str) -> Engine:
    """The engine `name`, holding `network`. Raises EngineError."""
    if name not in _ENGINES:
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(_ENGINES)}")
    return _ENGINES[name](network, precision, device)


def signature(network: Network) -> str:
    """Twelve hexadecimal digits of everything that decides an inference's arithmetic: builder, arguments, tensor
    shapes."""
    shapes: dict[str, Any] = {name: list(tensor.shape) for name, tensor in sorted(network.tensors.items())}
    words = json.dumps([network.builder, dict(network.kwargs), shapes], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:12]
