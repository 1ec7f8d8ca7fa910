"""Parameters of the stages of architecture search. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from benchmark.plan.task import Config, Params, Task
from methods.nas.spaces import Space

CostKind = Literal["macs", "latency", "energy"]
Order = Literal["first", "second"]


class Searching(Params):
    """What every search is told. Of `task`: the data that is searched on, the recipe of the weights that are trained
    meanwhile, and the space, by the builder of its networks and all of their arguments but the architecture."""

    trains: ClassVar[bool] = False  # its epochs are no training of the network that comes of it
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

    add: loss = CE + weight (E - E_ref) / E_ref; multiply: loss = factor CE (ln E / ln E_ref)^weight. E_ref is the cost
    of an architecture drawn at random, on average, or `reference`, in the unit of E: MACs, microseconds or microjoules
    an image.
    """

    kind: CostKind
    rule: Literal["add", "multiply"] = "add"
    weight: float = Field(default=0.1, gt=0)
    factor: float = Field(default=0.2, gt=0)
    reference: float | None = Field(default=None, gt=1)


class CostTable(Params):
    """Parameters of `methods.nas.proxyless.costs:table`: every operation of a space, measured at its own place.

    A batch of `batch_size` images, for at least `seconds` each.
    """

    task: Task
    space: Space
    batch_size: int = Field(default=128, gt=0)
    seconds: float = Field(default=0.5, gt=0)


class ProxylessSearch(Searching):
    """Parameters of `methods.nas.proxyless.search:search`.

    The epochs of the recipe search; before them the weights alone are trained for `weights_only_epochs`, at
    `weights_only_lr`. In the first searching epoch, too, no architecture step is taken. `samples` are the paths that a
    step of mode reinforce compares.
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
    """Parameters of `methods.nas.training_free.search:score`: how many architectures are drawn, and of how many images
    naswot compares the answers."""

    space: Space
    candidates: int = Field(default=1000, gt=0)
    images: int = Field(default=128, gt=1)
    proxies: tuple[Literal["synflow", "naswot"], ...] = ("synflow", "naswot")


class RandomSearch(Searching):
    """Parameters of `methods.nas.training_free.search:try_out`: how many architectures are drawn, and the share of the
    training images that the best is chosen on."""

    space: Space
    candidates: int = Field(default=8, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)


class Retraining(Params):
    """Parameters of `methods.nas.stages:retrain`: what is built is `task.model` with `architecture`, or, without one,
    with what the search handed on.

    `auxiliary_weight` and `drop_path` are DARTS's regularisation, for its networks alone.
    """

    task: Task
    architecture: Mapping[str, Any] | None = None
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0
