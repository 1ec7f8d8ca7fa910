"""A network of your own: a function that takes the number of classes and returns an nn.Module for 32x32 RGB images."""

from torch import nn


def small(classes: int, width: int = 32) -> nn.Module:
    """Three convolutions and a linear layer; `width` comes from the YAML's kwargs, or is 32."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
    )  # fmt: skip  # a block a line
