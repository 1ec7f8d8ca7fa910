"""The loss of a network of cells: cross-entropy with drop-path and an auxiliary head, both only for training."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.vision.models.nas.darts import CellNetwork


class AuxiliaryHead(nn.Module):
    """A second classifier on maps of 8 x 8 pixels: average pooling, 1x1 to 128, 2x2 to 768, linear.

    Source: DARTS's AuxiliaryHeadCIFAR. There the first ReLU runs in place, because the next cell rectifies these maps
    anyway; here it does not run in place.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.bn2 = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits [n, classes] of maps [n, channels, 8, 8]."""
        x = functional.avg_pool2d(functional.relu(maps), 5, stride=3, count_include_pad=False)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return] # untyped in torch


class CellLoss(nn.Module):
    """Cross-entropy of the network + `auxiliary_weight` times that of the auxiliary head, with drop-path.

    In epoch e (from 0) of `epochs`, each operation's output is dropped, sample by sample, with probability p =
    `drop_path` x e / epochs, and the other outputs are scaled by 1 / (1 - p). Identities are never dropped. Source:
    DARTS's train.py.
    """

    capturable = True

    def __init__(self, head: AuxiliaryHead | None, auxiliary_weight: float, drop_path: float, epochs: int) -> None:
        super().__init__()
        self.head = head
        self.auxiliary_weight = auxiliary_weight
        self.drop_path = drop_path
        self.epochs = epochs
        self.label_smoothing = 0.0
        self.register_buffer("probability", torch.zeros(()), persistent=False)
        self.probability: Tensor

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch's probability in place, because a captured step reads it again at every replay."""
        self.probability.fill_(self.drop_path * epoch / self.epochs)

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the network's own logits."""
        del index
        network = cast(CellNetwork, model)
        logits, tapped = network.answers(images, self.dropped if self.drop_path else None)
        value = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if self.head is not None:
            second = functional.cross_entropy(self.head(tapped), labels, label_smoothing=self.label_smoothing)
            value = value + self.auxiliary_weight * second
        return value, logits

    def dropped(self, name: str, out: Tensor) -> Tensor:
        """An operation's output, with some samples set to zero."""
        keep = 1 - self.probability
        return out * (self.kept(name, out) / keep)

    def kept(self, name: str, out: Tensor) -> Tensor:
        """1 for the samples that stay, 0 for the others, [n, 1, 1, 1]; drawn from torch's generator of the device."""
        del name  # a test chooses masks by name
        drawn = torch.rand(len(out), 1, 1, 1, device=out.device)
        return (drawn < 1 - self.probability).to(out.dtype)


def cell_loss(network: CellNetwork, classes: int, auxiliary_weight: float, drop_path: float, epochs: int) -> CellLoss:
    """The loss for a network, with an auxiliary head where the weight is not zero."""
    head = AuxiliaryHead(network.auxiliary_channels, classes) if auxiliary_weight else None
    return CellLoss(head, auxiliary_weight, drop_path, epochs)
