"""The few layers and rules of initialisation that several families share."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose padding keeps the size at stride 1."""
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The residual shortcut: 1x1 convolution and batch normalisation where shape changes, identity elsewhere."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


@torch.fx.wrap
def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """View the channels of [B, C, H, W] as [groups, C / groups], transpose, flatten. Keeps the memory format of `x`.

    It depends on the memory format, so call it through `ChannelShuffle`, which `torch.fx` keeps as one opaque node.
    """
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    # without this branch every shuffle would leave channels_last and the next convolution would copy back to it
    channels_last = x.permute(0, 2, 3, 1)
    return torch.unflatten(channels_last, 3, (groups, -1)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


class ChannelShuffle(nn.Module):
    """`channel_shuffle` with a fixed number of groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, self.groups)


def init_convs(network: nn.Module) -> None:
    """Draw every convolution of `network` from N(0, sqrt(2 / (kh kw C_out))), depthwise ones too, and zero its bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
