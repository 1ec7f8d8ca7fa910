"""RepDistiller's ShuffleNet V1 for 32 x 32 images: three groups, a 1x1 stem, no max pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import ChannelShuffle, conv

GROUPS = 3
STEM = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; plus the input, or at stride 2 beside the pooled input.

    The `last` of a stage leaves its ReLU to the network.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, last: bool) -> None:
        super().__init__()
        branch = c_out - c_in if stride == 2 else c_out
        mid = branch // 4
        groups = 1 if c_in == STEM else GROUPS
        self.conv1 = conv(c_in, mid, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(mid)
        self.shuffle = nn.Identity() if groups == 1 else ChannelShuffle(groups)
        self.conv2 = conv(mid, mid, 3, stride, groups=mid)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = conv(mid, branch, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(branch)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(F.relu(self.bn1(self.conv1(x))))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y + x if self.pool is None else torch.cat((y, self.pool(x)), dim=1)
        return y if self.last else F.relu(y)


def _stage(c_in: int, c_out: int, units: int) -> nn.Sequential:
    rest = (ShuffleUnit(c_out, c_out, 1, last=i == units - 1) for i in range(1, units))
    return nn.Sequential(ShuffleUnit(c_in, c_out, 2, last=False), *rest)


class ShuffleV1(nn.Module):
    """1x1 stem, stages of 4, 8 and 4 units, average pooling, classifier. Initialised by PyTorch's defaults."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.stages = nn.ModuleList((_stage(STEM, 240, 4), _stage(240, 480, 8), _stage(480, 960, 4)))
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Linear(960, classes)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0] stem, f[1..3] stages after (`preact`: before) their last ReLU, f[4] pooled; and the logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        maps = [x]
        for stage in self.stages:
            before = stage(x)
            x = F.relu(before)
            maps.append(before if preact else x)
        pooled = self.pool(x).flatten(1)
        return [*maps, pooled], self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[1]

    def feature_modules(self) -> list[nn.Module]:
        """Stem and stages, see `interface.FeatureNetwork`."""
        return [self.conv1, self.bn1, *self.stages]


def shufflev1(classes: int = 100) -> ShuffleV1:
    """ShuffleNet V1 of three groups."""
    return ShuffleV1(classes)
