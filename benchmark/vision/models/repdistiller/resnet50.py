"""RepDistiller's ResNet-50 for 32 x 32 images: a 3x3 stem of stride 1 and no max pooling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import conv, init_convs, shortcut

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided) and 1x1 convolution and a shortcut. The `last` of a stage leaves its ReLU to the network."""

    def __init__(self, c_in: int, width: int, stride: int, last: bool) -> None:
        super().__init__()
        c_out = EXPANSION * width
        self.conv1 = conv(c_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, c_out, 1)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.shortcut = shortcut(c_in, c_out, stride)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + self.shortcut(x)
        return y if self.last else F.relu(y)


def _stage(c_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(EXPANSION * width, width, 1, last=i == blocks - 1) for i in range(1, blocks))
    return nn.Sequential(Bottleneck(c_in, width, stride, last=blocks == 1), *rest)


class ResNet50(nn.Module):
    """Stem, four stages of 3, 4, 6 and 3 bottlenecks, global average pooling, classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.stages = nn.ModuleList(
            (_stage(64, 64, 3, 1), _stage(256, 128, 4, 2), _stage(512, 256, 6, 2), _stage(1024, 512, 3, 2))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2048, classes)
        init_convs(self)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0] stem, f[1..4] stages after (`preact`: before) their last ReLU, f[5] pooled; and the logits."""
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


def resnet50(classes: int = 100) -> ResNet50:
    """ResNet-50 for 32 x 32 images."""
    return ResNet50(classes)
