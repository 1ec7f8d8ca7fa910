"""A network, and a loss, small enough for any test."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.vision.loss import CrossEntropy


def tiny(classes: int = 10, width: int = 8) -> nn.Module:
    """One strided convolution with batch norm, dropout, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


class Scaled(CrossEntropy):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model, images, labels, index):
        value, logits = super().forward(model, images, labels, index)
        return value * self.scale, logits
