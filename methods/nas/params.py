"""Parameters of the stages of architecture search. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmark.plan.task import Config, Effort, Given, Params, Task
from methods.nas.spaces import Space

CostKind = Literal["macs", "latency", "energy"]
Order = Literal["first", "second"]


class Searching(Params):
    """The common parameters of all searches.

    `task` holds the data of the search, the recipe of the weights that are trained during it, and the space: the
    builder of its networks and all arguments except the architecture.
    """

    trains: ClassVar[bool] = False  # its epochs do not train the network that is found
    task: Task


class Alphas(Config):
    """How architecture parameters are trained: Adam's settings."""

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)


SUPERNET_CELLS = 6.0
"""The MACs of a supernet of mixed operations beside those of one network of its size: 14 edges with 5 operations of
weight, where a derived cell has 8 edges with one, half of which have no weight."""


class DartsSearch(Searching):
    """Parameters of `methods.nas.darts.search:search`, and of its twin by NNI."""

    order: Order = "first"
    alphas: Alphas

    def effort(self, given: Given) -> Effort:
        """A weight step and an architecture step on each half of the images; a cell of the supernet holds every
        operation, and the second order costs 2.8 times the first (docs/nas.md)."""
        times = SUPERNET_CELLS * (2.8 if self.order == "second" else 1.0)
        return Effort((self.task.training()._replace(times=times),))


class Costs(Config):
    """How the cost of an architecture enters a search: what is counted, and how it joins the cross-entropy.

    add: loss = CE + weight (E - E_ref) / E_ref; multiply: loss = factor CE (ln E / ln E_ref)^weight. E_ref is the mean
    cost of random architectures, or `reference`. The unit of E and E_ref is MACs, microseconds or microjoules per
    image.
    """

    kind: CostKind
    rule: Literal["add", "multiply"] = "add"
    weight: float = Field(default=0.1, gt=0)
    factor: float = Field(default=0.2, gt=0)
    reference: float | None = Field(default=None, gt=1)


class CostTable(Params):
    """Parameters of `methods.nas.proxyless.costs:table`, which measures every operation of a space at its own place.

    Each operation runs on batches of `batch_size` images, for at least `seconds`.
    """

    task: Task
    space: Space
    batch_size: int = Field(default=128, gt=0)
    seconds: float = Field(default=0.5, gt=0)

    def effort(self, given: Given) -> Effort:
        """Every operation at its own place, and as long again to begin with each."""
        return Effort(seconds=2 * self.seconds * sum(map(len, self.space.edges)))


class ProxylessSearch(Searching):
    """Parameters of `methods.nas.proxyless.search:search`.

    The search takes the recipe's epochs. Before them only the weights are trained, for `weights_only_epochs` at
    `weights_only_lr`. In the first epoch of the search there is no architecture step either. `samples` is the number of
    paths that a step of mode reinforce compares.
    """

    space: Space
    mode: Literal["two", "full", "reinforce"] = "two"
    samples: int = Field(default=10, gt=1)
    alphas: Alphas
    every: int = Field(default=5, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    weights_only_epochs: int = Field(default=0, ge=0)
    weights_only_lr: float = Field(default=0.05, gt=0)
    costs: Costs | None = None

    def effort(self, given: Given) -> Effort:
        """The epochs, the epochs of weights alone, and two paths (in mode full all) at every architecture step."""
        weights = self.task.training()
        paths = {"two": 2.0, "full": float(len(self.space.edges[0])), "reinforce": self.samples / 3}[self.mode]
        warm = weights._replace(images=weights.images * self.weights_only_epochs / self.task.recipe.epochs)
        steps = weights._replace(images=weights.images / self.every, times=paths)
        return Effort((weights, warm, steps))


class ZeroCostSearch(Searching):
    """Parameters of `methods.nas.training_free.search:score`: the number of architectures, and of naswot's images."""

    space: Space
    candidates: int = Field(default=1000, gt=0)
    images: int = Field(default=128, gt=1)
    proxies: tuple[Literal["synflow", "naswot"], ...] = ("synflow", "naswot")

    def effort(self, given: Given) -> Effort:
        """Every candidate built, and looked at by every proxy."""
        shown = self.task.shown(self.candidates * self.images * len(self.proxies))
        return Effort((shown._replace(batch=self.images),), seconds=0.1 * self.candidates)


class RandomSearch(Searching):
    """Parameters of `methods.nas.training_free.search:try_out`.

    The number of architectures, and the share of the training images on which the best one is chosen.
    """

    space: Space
    candidates: int = Field(default=8, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)

    def effort(self, given: Given) -> Effort:
        """The epochs of every candidate."""
        training = self.task.training()
        return Effort((training._replace(images=training.images * self.candidates),))


class Retraining(Params):
    """Parameters of `methods.nas.stages:retrain`, which builds `task.model` with `architecture`.

    Without `architecture` it takes the one that the search found. `auxiliary_weight` and `drop_path` are DARTS's
    regularisation, only for its networks.
    """

    task: Task
    architecture: Mapping[str, Any] | None = None
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0

    def effort(self, given: Given) -> Effort:
        """The epochs of the recipe."""
        return Effort((self.task.training(),))
