"""ResNet for 32 x 32 images as in NNI's pruning examples: post-activation (2015) blocks, stride-1 stem, no stem
pooling."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def _shortcut(width: int, out: int, stride: int) -> nn.Sequential:
    """A projection where the shape changes, else nothing."""
    if stride == 1 and width == out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(width, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; the stride sits on the first."""

    expansion = 1

    def __init__(self, width: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = _shortcut(width, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 (four times as wide) and a shortcut; the stride sits on the 3 x 3."""

    expansion = 4

    def __init__(self, width: int, planes: int, stride: int) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(width, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = _shortcut(width, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """Images [n, 3, 32, 32] to logits [n, classes], in four stages of 64, 128, 256 and 512 planes."""

    def __init__(self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width, stages = 64, []
        for number, (depth, planes) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
            blocks = []
            for position in range(depth):
                stride = 2 if number > 1 and position == 0 else 1
                blocks.append(block(width, planes, stride))
                width = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.pool = nn.AvgPool2d(4)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(images)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.fc(self.pool(out).flatten(1))  # type: ignore[no-any-return] # nn.Module calls are untyped


def resnet18(classes: int = 100) -> ResNet:
    """ResNet18: basic blocks 2-2-2-2, 11,220,132 parameters at 100 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes)


def resnet34(classes: int = 100) -> ResNet:
    """ResNet34: basic blocks 3-4-6-3, 21,328,292 parameters at 100 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), classes)


def resnet50(classes: int = 100) -> ResNet:
    """ResNet50: bottlenecks 3-4-6-3, 23,705,252 parameters at 100 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)
