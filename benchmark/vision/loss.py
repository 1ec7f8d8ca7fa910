"""What a training loop asks of a loss, and the plain one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional

from benchmark.plan.task import Recipe


class Loss(Protocol):
    """Maps a model and a batch to (loss, logits). An implementation is an nn.Module and may own parameters, which
    train too.

    A loss whose every call does the same device work on tensors that stay in place (no draws on the host, no
    `.item()`, no Python state that changes) may declare a class attribute `capturable = True`: only then is a step
    with it replayed from a CUDA graph, which would freeze anything else without a word.
    """

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]: ...
    def parameters(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...
    def train(self) -> Any: ...
    def to(self, device: str) -> Any: ...


class CrossEntropy(nn.Module):
    """Mean cross-entropy of the model's logits, with the recipe's label smoothing."""

    capturable = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """`index` goes unused: it is there for losses that remember images."""
        del index
        logits = model(images)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


def loss_of(recipe: Recipe) -> CrossEntropy:
    """The plain loss a recipe asks for."""
    return CrossEntropy(recipe.label_smoothing)
