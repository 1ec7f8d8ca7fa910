"""RepDistiller's MobileNetV2 for 32 x 32 images: width 0.5, expansion 6, ReLU in place of ReLU6, no dropout."""

from __future__ import annotations

from torch import Tensor, nn

from benchmark.vision.models.repdistiller.layers import conv, init_convs

# expansion, channels, blocks, stride of the first block
GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
SHOWN = (2, 3, 5, 7)  # groups, counted from 1, whose outputs are features


class InvertedResidual(nn.Module):
    """1x1 expansion (kept at expansion 1), 3x3 depthwise, linear 1x1; plus the input where the shape stays."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * c_in
        self.branch = nn.Sequential(
            conv(c_in, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv(hidden, hidden, 3, stride, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv(hidden, c_out, 1),
            nn.BatchNorm2d(c_out),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


def _group(c_in: int, c_out: int, expansion: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (InvertedResidual(c_out, c_out, 1, expansion) for _ in range(1, blocks))
    return nn.Sequential(InvertedResidual(c_in, c_out, stride, expansion), *rest)


def _conv_bn_relu(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(c_in, c_out, kernel, stride), nn.BatchNorm2d(c_out), nn.ReLU())


class MobileNetV2(nn.Module):
    """Stem of stride 2, seven groups of inverted residuals, 1x1 convolution to 1280 channels, pooling, classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        c_in = 16
        self.stem = _conv_bn_relu(3, c_in, 3, 2)
        self.groups = nn.ModuleList()
        for expansion, c_out, blocks, stride in GROUPS:
            self.groups.append(_group(c_in, c_out, expansion, stride, blocks))
            c_in = c_out
        self.head = _conv_bn_relu(c_in, 1280, 1, 1)
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Linear(1280, classes)
        init_convs(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        """f[0] stem, f[1..4] groups 2, 3, 5 and 7, f[5] pooled; and the logits.

        The groups end linearly, so f[1..4] are signed and `preact` changes nothing.
        """
        x = self.stem(x)
        maps = [x]
        for number, group in enumerate(self.groups, start=1):
            x = group(x)
            if number in SHOWN:
                maps.append(x)
        pooled = self.pool(self.head(x)).flatten(1)
        return [*maps, pooled], self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[1]

    def feature_modules(self) -> list[nn.Module]:
        """Stem and groups, without the last 1x1 convolution, see `interface.FeatureNetwork`."""
        return [self.stem, *self.groups]


def mobilenetv2(classes: int = 100) -> MobileNetV2:
    """MobileNetV2 of width 0.5."""
    return MobileNetV2(classes)
