"""RepDistiller's ShuffleNet V2 (1x) for 32 x 32 images: a 1x1 stem, no max pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import ChannelShuffle, conv

STEM = 24


def _branch(c_in: int, c_out: int, stride: int, last: bool) -> nn.Sequential:
    """1x1, 3x3 depthwise, 1x1; each normalised; ReLU after the first and, unless `last`, after the third."""
    layers = (
        conv(c_in, c_out, 1),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
        conv(c_out, c_out, 3, stride, groups=c_out),
        nn.BatchNorm2d(c_out),
        conv(c_out, c_out, 1),
        nn.BatchNorm2d(c_out),
    )
    return nn.Sequential(*layers) if last else nn.Sequential(*layers, nn.ReLU())


class DownUnit(nn.Module):
    """Two strided branches of half the output channels each, concatenated and shuffled."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.left = nn.Sequential(
            conv(c_in, c_in, 3, 2, groups=c_in),
            nn.BatchNorm2d(c_in),
            conv(c_in, half, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )
        self.right = _branch(c_in, half, 2, last=False)
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shuffle(torch.cat((self.left(x), self.right(x)), dim=1))
        return y


class BasicUnit(nn.Module):
    """Half of the channels pass unchanged, half go through a branch.

    The `last` unit of a stage leaves ReLU and shuffle to the network.
    """

    def __init__(self, channels: int, last: bool) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1, last)
        self.shuffle = nn.Identity() if last else ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = x.chunk(2, dim=1)
        y: Tensor = self.shuffle(torch.cat((passed, self.branch(worked)), dim=1))
        return y


def _stage(c_in: int, c_out: int, basic_units: int) -> nn.Sequential:
    units = (BasicUnit(c_out, last=i == basic_units - 1) for i in range(basic_units))
    return nn.Sequential(DownUnit(c_in, c_out), *units)


class ShuffleV2(nn.Module):
    """1x1 stem, stages of one down unit and 3, 7 and 3 basic units, 1x1 convolution to 1024 channels, average pooling,
    classifier. Initialised by PyTorch's defaults.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.stages = nn.ModuleList((_stage(STEM, 116, 3), _stage(116, 232, 7), _stage(232, 464, 3)))
        self.shuffle = ChannelShuffle(2)
        self.conv2 = conv(464, 1024, 1)
        self.bn2 = nn.BatchNorm2d(1024)
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Linear(1024, classes)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0] stem, f[1..3] stages after their shuffle, f[4] pooled; and the logits.

        `preact` gives f[1..3] as passed half and branch before its last ReLU, not shuffled: their channels are ordered
        differently.
        """
        x = F.relu(self.bn1(self.conv1(x)))
        maps = [x]
        for stage in self.stages:
            before = stage(x)
            # the passed half has been through a ReLU, which a second one does not change
            x = self.shuffle(F.relu(before))
            maps.append(before if preact else x)
        pooled = self.pool(F.relu(self.bn2(self.conv2(x)))).flatten(1)
        return [*maps, pooled], self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[1]

    def feature_modules(self) -> list[nn.Module]:
        """Stem and stages, without the last 1x1 convolution, see `interface.FeatureNetwork`."""
        return [self.conv1, self.bn1, *self.stages]


def shufflev2(classes: int = 100) -> ShuffleV2:
    """ShuffleNet V2 of width 1."""
    return ShuffleV2(classes)
