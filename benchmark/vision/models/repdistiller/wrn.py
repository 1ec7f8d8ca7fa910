"""RepDistiller's wide residual networks: wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2 (depth, width factor), no dropout."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import conv, init_convs


class PreactBlock(nn.Module):
    """Batch normalisation and ReLU before each of two 3x3 convolutions; a 1x1 shortcut sees the activated input."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = conv(c_in, c_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out, 3)
        self.shortcut = None if c_in == c_out else conv(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + (x if self.shortcut is None else self.shortcut(activated))


def _group(c_in: int, c_out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(PreactBlock(c_in, c_out, stride), *(PreactBlock(c_out, c_out, 1) for _ in range(1, blocks)))


class WideResNet(nn.Module):
    """Stem, three groups of `blocks` pre-activation blocks of 16, 32 and 64 times `factor` channels, classifier."""

    def __init__(self, blocks: int, factor: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        self.groups = nn.ModuleList(
            (
                _group(16, 16 * factor, blocks, 1),
                _group(16 * factor, 32 * factor, blocks, 2),
                _group(32 * factor, 64 * factor, blocks, 2),
            )
        )
        self.bn = nn.BatchNorm2d(64 * factor)
        self.pool = nn.AvgPool2d(8)
        self.classifier = nn.Linear(64 * factor, classes)
        init_convs(self)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0] stem, f[1..3] raw (signed) group outputs, f[4] pooled; and the logits.

        `preact` passes f[1..3] through the batch normalisation that follows each group. As in the original this calls
        those three layers a second time, so in train mode it updates their running statistics twice.
        """
        x = self.conv1(x)
        maps = [x]
        for group in self.groups:
            x = group(x)
            maps.append(x)
        pooled = self.pool(F.relu(self.bn(x))).flatten(1)
        if preact:
            following = (self._first_norm(1), self._first_norm(2), self.bn)
            maps = [maps[0], *(norm(raw) for norm, raw in zip(following, maps[1:], strict=True))]
        return [*maps, pooled], self.classifier(pooled)

    def _first_norm(self, group: int) -> nn.Module:
        return cast(PreactBlock, cast(nn.Sequential, self.groups[group])[0]).bn1

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[1]

    def feature_modules(self) -> list[nn.Module]:
        """Stem and groups, without the final batch normalisation, see `interface.FeatureNetwork`."""
        return [self.conv1, *self.groups]


def wrn_16_1(classes: int = 100) -> WideResNet:
    """WRN-16-1: two blocks per group, width factor 1."""
    return WideResNet(2, 1, classes)


def wrn_16_2(classes: int = 100) -> WideResNet:
    """WRN-16-2: two blocks per group, width factor 2."""
    return WideResNet(2, 2, classes)


def wrn_40_1(classes: int = 100) -> WideResNet:
    """WRN-40-1: six blocks per group, width factor 1."""
    return WideResNet(6, 1, classes)


def wrn_40_2(classes: int = 100) -> WideResNet:
    """WRN-40-2: six blocks per group, width factor 2."""
    return WideResNet(6, 2, classes)
