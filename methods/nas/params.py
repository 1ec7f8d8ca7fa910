"""Parameters of the stages of architecture search. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmark.plan.task import Config, Params, Task
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


class DartsSearch(Searching):
    """Parameters of `methods.nas.darts.search:search`, and of its twin by NNI."""

    order: Order = "first"
    alphas: Alphas


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


class ZeroCostSearch(Searching):
    """Parameters of `methods.nas.training_free.search:score`: the number of architectures, and of naswot's images."""

    space: Space
    candidates: int = Field(default=1000, gt=0)
    images: int = Field(default=128, gt=1)
    proxies: tuple[Literal["synflow", "naswot"], ...] = ("synflow", "naswot")


class RandomSearch(Searching):
    """Parameters of `methods.nas.training_free.search:try_out`.

    The number of architectures, and the share of the training images on which the best one is chosen.
    """

    space: Space
    candidates: int = Field(default=8, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)


class Retraining(Params):
    """Parameters of `methods.nas.stages:retrain`, which builds `task.model` with `architecture`.

    Without `architecture` it takes the one that the search found. `auxiliary_weight` and `drop_path` are DARTS's
    regularisation, only for its networks.
    """

    task: Task
    architecture: Mapping[str, Any] | None = None
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0
