"""RepDistiller's CIFAR ResNets of basic blocks: resnet8 to resnet110, and resnet8x4 and resnet32x4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import conv, init_convs, shortcut

Widths = tuple[int, int, int, int]
NARROW: Widths = (16, 16, 32, 64)
WIDE: Widths = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. The `last` of a stage leaves its ReLU to the network."""

    def __init__(self, c_in: int, c_out: int, stride: int, last: bool) -> None:
        super().__init__()
        self.conv1 = conv(c_in, c_out, 3, stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, 3)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = shortcut(c_in, c_out, stride)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        return y if self.last else F.relu(y)


def _stage(c_in: int, c_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(c_in, c_out, stride, last=blocks == 1)
    return nn.Sequential(first, *(BasicBlock(c_out, c_out, 1, last=i == blocks - 1) for i in range(1, blocks)))


class ResNet(nn.Module):
    """Stem, three stages of `blocks` basic blocks, pooling, classifier; `widths` are those of stem and stages."""

    def __init__(self, blocks: int, widths: Widths, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            _stage(c_in, c_out, blocks, stride)
            for c_in, c_out, stride in zip(widths[:-1], widths[1:], (1, 2, 2), strict=True)
        )
        self.pool = nn.AvgPool2d(8)
        self.classifier = nn.Linear(widths[-1], classes)
        init_convs(self)

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


def resnet8(classes: int = 100) -> ResNet:
    """ResNet-8: one block per stage."""
    return ResNet(1, NARROW, classes)


def resnet14(classes: int = 100) -> ResNet:
    """ResNet-14: two blocks per stage."""
    return ResNet(2, NARROW, classes)


def resnet20(classes: int = 100) -> ResNet:
    """ResNet-20: three blocks per stage."""
    return ResNet(3, NARROW, classes)


def resnet32(classes: int = 100) -> ResNet:
    """ResNet-32: five blocks per stage."""
    return ResNet(5, NARROW, classes)


def resnet44(classes: int = 100) -> ResNet:
    """ResNet-44: seven blocks per stage."""
    return ResNet(7, NARROW, classes)


def resnet56(classes: int = 100) -> ResNet:
    """ResNet-56: nine blocks per stage."""
    return ResNet(9, NARROW, classes)


def resnet110(classes: int = 100) -> ResNet:
    """ResNet-110: eighteen blocks per stage."""
    return ResNet(18, NARROW, classes)


def resnet8x4(classes: int = 100) -> ResNet:
    """ResNet-8 of four times the width."""
    return ResNet(1, WIDE, classes)


def resnet32x4(classes: int = 100) -> ResNet:
    """ResNet-32 of four times the width."""
    return ResNet(5, WIDE, classes)
