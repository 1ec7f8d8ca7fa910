"""A frozen network that gives its answers while another network learns from them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.vision.models.repdistiller.interface import FeatureNetwork

Features = tuple[list[Tensor], Tensor]


class Teacher(nn.Module):
    """A copy of `module` that only answers: always in eval mode, without gradients, with batch norms folded.

    Batch norms are folded into convolutions unless `fold` is off; then every layer stays in its place. A teacher has no
    parameters. Its tensors are buffers that move with the module that holds the teacher. They are in no state dict
    because the code that builds the teacher again has its network. With `remember` the last answers are kept and given
    again for the same image tensor, so that several students can share one forward pass. Do not use `remember` within a
    captured step: a replay runs no Python, so it would not notice new images.
    """

    def __init__(self, module: nn.Module, remember: bool = False, fold: bool = True) -> None:
        super().__init__()
        self.module = _without_parameters(folded(module) if fold else copy.deepcopy(module))
        self._remember = remember
        self._images: tuple[Tensor, int] | None = None
        self._answers: dict[str, Any] = {}
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever `mode` says."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """`logits`."""
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, h, w]."""

        def ask() -> Tensor:
            with torch.inference_mode():
                logits: Tensor = self.module(images)
            return logits.clone()  # a tensor made in inference mode may not enter a backward pass; its copy may

        answer: Tensor = self._ask("logits", images, ask)
        return answer

    def features(self, images: Tensor, preact: bool = False) -> Features:
        """Feature list and logits, see `models.repdistiller.interface.FeatureNetwork`."""

        def ask() -> Features:
            with torch.no_grad():  # inference mode would cost a copy of every map, for the reason above
                features: Features = self.module.features(images, preact)  # type: ignore[operator] # duck-typed
            return features

        answer: Features = self._ask(f"features {preact}", images, ask)
        return answer

    def _ask(self, what: str, images: Tensor, ask: Callable[[], Any]) -> Any:
        if not self._remember:
            return ask()
        if self._images is None or self._images[0] is not images or self._images[1] != images._version:
            self._images, self._answers = (images, images._version), {}
        if what not in self._answers:
            self._answers[what] = ask()
        return self._answers[what]


def folded(module: nn.Module, size: int = 32) -> nn.Module:
    """A copy in eval mode with batch norms folded into convolutions: the same answers and features, up to rounding.

    A BatchNorm2d is folded where it is the only user of a convolution's output. One image [1, 3, size, size] sent
    through the network shows where this is so.
    """
    twin = copy.deepcopy(module).eval()
    for conv, norm in _pairs(twin, size):
        assert norm.running_mean is not None, "_pairs gives none without running statistics"
        assert norm.running_var is not None, "same"
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        for parent in twin.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())
    return twin


def _without_parameters(module: nn.Module) -> nn.Module:
    """Turn every parameter and buffer of the module, in place, into a buffer that no state dict holds."""
    for part in module.modules():
        for name, tensor in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(part, name)
            part.register_buffer(name, tensor.detach(), persistent=False)
        for name, buffer in list(part.named_buffers(recurse=False, remove_duplicate=False)):
            part.register_buffer(name, buffer, persistent=False)
    return module


class _Uses(TorchDispatchMode):
    """Counts how often each tensor is an operation's argument, and keeps all alive so that identities stay unique."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in torch
        self.count: Counter[int] = Counter()
        self._alive: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        out = function(*args, **kwargs)
        self._alive.append((args, kwargs, out))
        return out


def _pairs(network: nn.Module, size: int) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [
        m.register_forward_hook(lambda module, inputs, out: calls.append((module, inputs[0], out)))
        for m in network.modules()
        if isinstance(m, kinds)
    ]
    some = next(network.parameters())
    image = torch.zeros(1, 3, size, size, device=some.device, dtype=some.dtype)
    with torch.no_grad(), _Uses() as uses:
        ask: Any = network.features if isinstance(network, FeatureNetwork) else network
        shown = ask(image)
    for hook in hooks:
        hook.remove()
    given = {id(leaf) for leaf in tree_leaves(shown)}
    times = Counter(id(module) for module, _, _ in calls)
    makers = {id(out): module for module, _, out in calls if isinstance(module, nn.Conv2d)}
    pairs = []
    for module, seen, _ in calls:
        conv = makers.get(id(seen))
        alone = uses.count[id(seen)] == 1 and id(seen) not in given
        if isinstance(module, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d) and alone:
            once = times[id(module)] == times[id(conv)] == 1
            if once and module.running_mean is not None:
                pairs.append((conv, module))
    return pairs
