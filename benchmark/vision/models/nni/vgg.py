"""VGG for 32 x 32 images as in NNI's pruning examples (v2.0 to v2.4): batch norm, four max-pools, a two-layer
classifier."""

from __future__ import annotations

import math

from torch import Tensor, nn

POOL = 0
"""Stands for a 2 x 2 max-pool in a list of channel counts."""

_VGG13 = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512)
_VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
_VGG19 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, 256, POOL, 512, 512, 512, 512, POOL, 512, 512, 512, 512)


class VGG(nn.Module):
    """Images [n, 3, 32, 32] to logits [n, classes]. Convolutions carry no bias; each is followed by batch norm and
    ReLU."""

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for out in channels:
            if out == POOL:
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                width = out
        self.feature = nn.Sequential(*layers)
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, classes)
        )
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.feature(images)).flatten(1))  # type: ignore[no-any-return] # nn.Module calls are untyped

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                # one half, not one: the example's own choice, and it shapes which channels the pruners find idle
                nn.init.constant_(module.weight, 0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)


def vgg13(classes: int = 100) -> VGG:
    """VGG13: ten convolutions, 9,722,916 parameters at 100 classes."""
    return VGG(_VGG13, classes)


def vgg16(classes: int = 100) -> VGG:
    """VGG16: thirteen convolutions, 15,033,892 parameters at 100 classes."""
    return VGG(_VGG16, classes)


def vgg19(classes: int = 100) -> VGG:
    """VGG19: sixteen convolutions, 20,344,868 parameters at 100 classes."""
    return VGG(_VGG19, classes)
