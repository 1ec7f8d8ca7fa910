"""Networks with state that no state dict holds: some that can be stored all the same, and some that cannot."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Base(nn.Module):
    """A convolution, a batch norm and a linear layer; `adjust` is where the others differ."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def adjust(self, maps):
        return maps

    def forward(self, images):
        return self.head(self.adjust(functional.relu(self.norm(self.conv(images)))).mean((2, 3)))


# --- made by the builder: can be stored ---------------------------------------------------------------------------------


class Masked(Base):
    """A buffer that is not stored, the same at every build."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("window", torch.linspace(0.5, 1.5, 8).view(8, 1), persistent=False)

    def adjust(self, maps):
        return maps * self.window


class Shifted(Base):
    """A plain tensor, the same at every build, and a number."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.shift = torch.linspace(-1, 1, 8).view(8, 1)
        self.factor = 1.0

    def adjust(self, maps):
        return maps * self.factor + self.shift.to(maps)


class Tied(Base):
    """Two layers with one weight; a second name for a third."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(classes, width)
        self.first, self.second = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.second.weight = self.first.weight
        self.again = self.first

    def adjust(self, maps):
        return self.again(functional.relu(self.second(self.first(maps))))


class Frozen(Base):
    """A convolution and a norm that are not trained."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(classes, width)
        self.conv.requires_grad_(False)
        self.norm.requires_grad_(False)


class Chancy(Base):
    """Draws in eval mode, too: the same draws for the same generator."""

    def adjust(self, maps):
        return functional.dropout(maps, 0.5, training=True)


# --- made by chance or by training: must be refused ----------------------------------------------------------------------


class Projected(Masked):
    """A random buffer that is not stored."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.window.normal_()


class Drawn(Shifted):
    """A random plain tensor."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.shift = torch.randn(8, 1)


class Hidden(Base):
    """A layer in a plain list."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.more = [nn.Conv2d(8, 8, 1)]

    def adjust(self, maps):
        return self.more[0](maps)


class Noting(Base):
    """State that is no tensor."""

    def get_extra_state(self):
        return {"steps": 3}


class Averaging(Masked):
    """A running mean that is not stored; training moves it."""

    def adjust(self, maps):
        if self.training:
            with torch.no_grad():
                self.window.mul_(0.9).add_(maps.detach().mean((0, 2, 3)).view(8, 1), alpha=0.1)
        return super().adjust(maps)


class Counting(Shifted):
    """A plain number that every training step raises."""

    def adjust(self, maps):
        if self.training:
            self.factor += 0.01
        return super().adjust(maps)


class Remembering(Shifted):
    """A plain tensor that every training step replaces."""

    def adjust(self, maps):
        if self.training:
            self.shift = maps.detach().mean((0, 2, 3)).view(8, 1)
        return super().adjust(maps)


def _builder(network):
    def build(classes, **settings):
        return network(classes, **settings)

    return build


STORABLE = (Masked, Shifted, Tied, Frozen, Chancy)
CHANCE = {Projected: "non-persistent buffer window", Drawn: "plain attribute shift", Hidden: "plain attribute more"}
CHANGED = {
    Averaging: "non-persistent buffer window",
    Counting: "plain attribute factor",
    Remembering: "plain attribute shift",
}
base, noting = map(_builder, (Base, Noting))
masked, shifted, tied, frozen, chancy = map(_builder, STORABLE)
projected, drawn, hidden = map(_builder, CHANCE)
averaging, counting, remembering = map(_builder, CHANGED)
