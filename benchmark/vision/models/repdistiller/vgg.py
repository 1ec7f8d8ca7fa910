"""RepDistiller's VGG with batch normalisation: vgg8, vgg11, vgg13, vgg16, vgg19 (not NNI's of the same names)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import init_convs

WIDTHS = (64, 128, 256, 512, 512)
# the original pools after the fourth block only for 64 x 64 images, so here blocks 3 and 4 both have 4 x 4 maps
POOLED_BLOCKS = 3


def _block(c_in: int, c_out: int, convs: int) -> nn.Sequential:
    """3x3 convolutions (with bias), each normalised, with a ReLU between them; the last ReLU is the network's."""
    layers: list[nn.Module] = []
    for i in range(convs):
        if i:
            layers.append(nn.ReLU())
        layers += [nn.Conv2d(c_in if i == 0 else c_out, c_out, 3, padding=1), nn.BatchNorm2d(c_out)]
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Five blocks of `convs` convolutions, global average pooling, one linear classifier."""

    def __init__(self, convs: tuple[int, int, int, int, int], classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _block(c_in, c_out, n) for c_in, c_out, n in zip((3, *WIDTHS), WIDTHS, convs, strict=False)
        )
        self.max_pool = nn.MaxPool2d(2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[-1], classes)
        init_convs(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0..4] blocks before max pooling, after (`preact`, f[1..4]: before) their last ReLU, f[5] pooled; logits."""
        maps: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            before = block(x)
            x = F.relu(before)
            maps.append(before if preact and i > 0 else x)
            if i < POOLED_BLOCKS:
                x = self.max_pool(x)
        pooled = self.pool(x).flatten(1)
        return [*maps, pooled], self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[1]

    def feature_modules(self) -> list[nn.Module]:
        """The five blocks, see `interface.FeatureNetwork`."""
        return list(self.blocks)


def vgg8(classes: int = 100) -> VGG:
    """VGG-8: one convolution per block."""
    return VGG((1, 1, 1, 1, 1), classes)


def vgg11(classes: int = 100) -> VGG:
    """VGG-11: 1, 1, 2, 2, 2 convolutions."""
    return VGG((1, 1, 2, 2, 2), classes)


def vgg13(classes: int = 100) -> VGG:
    """VGG-13: two convolutions per block."""
    return VGG((2, 2, 2, 2, 2), classes)


def vgg16(classes: int = 100) -> VGG:
    """VGG-16: 2, 2, 3, 3, 3 convolutions."""
    return VGG((2, 2, 3, 3, 3), classes)


def vgg19(classes: int = 100) -> VGG:
    """VGG-19: 2, 2, 4, 4, 4 convolutions."""
    return VGG((2, 2, 4, 4, 4), classes)
