"""Searches small enough for a test: their tasks, spaces, and supernets whose best operation is known."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.plan.task import Data, Recipe, Scale, Task
from methods.nas.params import Alphas, DartsSearch, ProxylessSearch
from methods.nas.proxyless.gates import MixedOp
from methods.nas.proxyless.supernet import Supernet
from methods.nas.spaces import Space, darts, pmb

SPACE = pmb("xs").model_copy(
    update={
        "model": pmb("xs").model.model_copy(
            update={"name": "two", "kwargs": {"widths": [8, 8, 12], "strides": [2, 1, 2], "stem": 4}}
        ),
        "edges": tuple(pmb("xs").edges[number] for number in (2, 0, 2)),
    }
)
"""P-MB with three narrow blocks."""


def own_space(size: str) -> Space:
    """A space as somebody else would bring it."""
    assert size == "any"
    return SPACE


def recipe(**values) -> Recipe:
    """Two quick epochs."""
    base = {"name": "test", "epochs": 2, "batch_size": 16, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Recipe(**{**base, "schedule": "cosine", "clip_norm": 5.0, **values})


def task(space=None, images=64, **values) -> Task:
    """A search on a tiny synthetic set."""
    return Task(
        model=space or darts(4, 3),
        data=Data(name="synthetic", classes=10),
        scale=Scale(name="test", train_images=images, test_images=20),
        recipe=recipe(**values),
        seed=0,
        train_precision="fp32",
    )


def darts_search(**values) -> DartsSearch:
    """The smallest search of cells."""
    given = {"task": task(images=32, batch_size=8), "alphas": Alphas(lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)}
    return DartsSearch(**{**given, **values})


def proxyless_search(space: Space = SPACE, **values) -> ProxylessSearch:
    """The smallest search of blocks."""
    given = {
        "task": task(space.model, epochs=3, label_smoothing=0.1, nesterov=True),
        "space": space,
        "alphas": Alphas(lr=0.01, betas=(0.0, 0.999)),
        "every": 2,
        "held_out": 0.25,
        "weights_only_epochs": 1,
    }
    return ProxylessSearch(**{**given, **values})


class Destroyed(nn.Module):
    """Noise in the place of what came."""

    def forward(self, x):
        return torch.randn_like(x)


class Toy(nn.Module):
    """A network with two edges; what one of its operations passes on can be learned, what the others do cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        ops = [{"noise": Destroyed(), "pass": nn.Identity(), "nothing": Scaled(0.0)} for _ in range(2)]
        self.edges = nn.ModuleList(MixedOp(own) for own in ops)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        for edge in self.edges:
            x = torch.tanh(edge(x))
        return self.last(x)


class Scaled(nn.Module):
    """x times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def toy() -> Supernet:
    """The toy as a supernet of ProxylessNAS."""
    network = Toy()
    return Supernet(network, list(network.edges))


class MixedToy(nn.Module):
    """The toy as DARTS has it: all operations at once, mixed; smooth, so that finite differences say what they should."""

    def __init__(self, noise: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.ops = nn.ModuleList([Destroyed() if noise else nn.Linear(8, 8), nn.Identity(), Scaled(0.0)])
        self.last = nn.Linear(8, 3)
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(2, 3))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(1, 3))

    def forward(self, x):
        x = self.first(x)
        for row in (*self.alphas_normal, *self.alphas_reduce):
            x = torch.tanh(sum(weight * op(x) for weight, op in zip(row.softmax(-1), self.ops, strict=True)))
        return self.last(x)

    def architecture(self):
        return [self.alphas_normal, self.alphas_reduce]

    def weights(self):
        return {name: own for name, own in self.named_parameters() if not name.startswith("alphas_")}


def batch(count=32, dtype=torch.float32, seed=1):
    """Points and what a linear rule says of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator, dtype=dtype)
    return x, (x[:, 0] > 0.4).long() + (x[:, 1] > 0).long()
