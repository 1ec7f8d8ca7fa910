"""A residual network small enough for whole life cycles, with what makes pruning hard: a stream, a projection, a bias."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.pruning.golden import Block


class Mini(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.block1 = Block(8, 8, 1)
        self.block2 = Block(8, 12, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(48, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.fc(self.pool(self.block2(self.block1(x))).flatten(1))


def mini(classes: int = 10) -> Mini:
    return Mini(classes)


def opaque(classes: int = 10) -> nn.Module:
    """A network whose channels cannot be followed."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.Softmax(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


class Joined(nn.Module):
    """Two maps of different sizes, joined when flat: one channel is 64 features, another 16."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.fc = nn.Linear(4 * 64 + 4 * 16, classes)

    def forward(self, x):
        return self.fc(torch.cat([self.one(x).flatten(1), self.other(x).flatten(1)], 1))


def joined(classes: int = 10) -> nn.Module:
    return Joined(classes)
