"""What the training loop requires of a loss, and the plain cross-entropy loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional

from benchmark.plan.task import Recipe


class Loss(Protocol):
    """Maps a model and a batch (images, labels, each image's index in its split) to (loss, logits).

    An implementation is an nn.Module and may own parameters, buffers and modules. What `fit` does with them:

    * **Trained** is every parameter that requires a gradient when `fit` starts, and nothing else: only these reach the
      optimiser. The same holds for the model. A parameter that model and loss share is trained once.
    * **Modes**: before every epoch model and loss are put into train mode, except every part whose parameters are all
      frozen, which is put into eval mode: its dropout is off and its running statistics do not change. Parts without
      parameters take the mode of the module that holds them. So a loss may hold a frozen teacher as it is;
      `teacher.Teacher` is cheaper, and answers without gradients.
    * **Device and memory format** reach every registered part. Modules or parameters inside a plain list, tuple or dict
      would be missed (not trained, not moved, in no checkpoint), so they are refused: use nn.ModuleList, nn.ModuleDict
      or nn.ParameterList, and `register_buffer` for tensors.
    * **Checkpoints** hold the loss's state dict, frozen modules included. The weights of a `Teacher` are not in it: the
      code that builds the loss again provides them.
    * **`begin_epoch(epoch)`**, where a loss has it, is called before an epoch's first step with the number of the
      epoch, counted from 0. After an interruption the first call has the number of the next epoch, so everything it
      sets must follow from the number alone or lie in buffers. It runs outside captured steps: to change a value for
      them, it must write into a tensor in place (`self.weight.fill_(...)`), because a replay reads no Python value.
    * **`capturable = True`**, a class attribute, may be declared by a loss whose every call runs the same operations on
      the device, on tensors that stay in place (no draws on the host, no `.item()`, no Python state that changes). Only
      then is a step with it replayed from a CUDA graph, because a graph would silently freeze anything else.
    * **`kind_of_steps(epoch)`**, where a capturable loss has it, names (by any hashable value) the kind of an epoch's
      steps. A loss whose steps change between epochs needs it: graphs are replayed only in epochs of the same kind.
    """

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


class CrossEntropy(nn.Module):
    """Mean cross-entropy of the model's logits, with the recipe's label smoothing."""

    capturable = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """`index` is not used here; losses that remember images need it."""
        del index
        logits = model(images)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


def loss_of(recipe: Recipe) -> CrossEntropy:
    """The plain loss of a recipe."""
    return CrossEntropy(recipe.label_smoothing)
