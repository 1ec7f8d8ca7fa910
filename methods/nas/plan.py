"""Architecture searches as plans: search (compress), then train the found network from scratch (retrain). No torch.

Each method here provides the space of its network (`own_model`), so a command names no model with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from benchmark.plan.stage import Bound, Phase, Plan, Precision, Stage
from benchmark.plan.task import OURS, Config, Data, Model, Recipe, Task
from methods.baseline import plain
from methods.nas import spaces
from methods.nas.darts.genotype import PUBLISHED
from methods.nas.params import (
    Alphas,
    Costs,
    CostTable,
    DartsSearch,
    Order,
    ProxylessSearch,
    RandomSearch,
    Retraining,
    ZeroCostSearch,
)
from methods.way import with_recipe

Backend = Literal["native", "nni"]


class Regularised(Config):
    """How networks of cells are trained: their size, the auxiliary head's weight, and drop-path's last probability."""

    channels: int = Field(default=36, gt=0, multiple_of=2)
    cells: int = Field(default=20, ge=3)
    auxiliary_weight: float = Field(default=0.4, ge=0)
    drop_path: float = Field(default=0.2, ge=0, lt=1)

    def model(self) -> Model:
        """The builder and the arguments that all networks of this size share."""
        return spaces.darts(self.channels, self.cells)

    def check(self, task: Task) -> None:
        """Raise ValueError where the last batch of an epoch would be a single image.

        The auxiliary head has a batch norm on maps of one pixel, which cannot train on one image.
        """
        images, batch = task.train_images, task.recipe.batch_size
        if self.auxiliary_weight and images % batch == 1:
            raise ValueError(
                f"{images} images in batches of {batch} leave one alone, which the auxiliary head cannot train on: "
                "change recipe.batch_size, or set method.retrain.auxiliary_weight=0"
            )

    def retraining(self, task: Task, architecture: Mapping[str, Any] | None = None) -> Retraining:
        """The parameters of the training; without an architecture it takes the one that the search found."""
        return Retraining(
            task=plain(task),
            architecture=architecture,
            auxiliary_weight=self.auxiliary_weight,
            drop_path=self.drop_path,
        )


class Darts(Config):
    """Search the cells of a network by gradients, then train a larger network of these cells.

    `search` says how the weights of the search network are trained; `search_channels` and `search_cells` are its size.
    `order` is the order of the architecture's gradient, and `alphas` holds the settings of its Adam.
    """

    backend: Backend = "native"
    order: Order = "first"
    search: Recipe
    search_channels: int = Field(default=16, gt=0, multiple_of=2)
    search_cells: int = Field(default=8, ge=3)
    alphas: Alphas
    retrain: Regularised = Regularised()

    @model_validator(mode="after")
    def _nni_has_first_order(self) -> Darts:
        if self.backend == "nni" and self.order == "second":
            raise ValueError(
                "backend=nni: NNI 3.0 has only first-order DARTS: leave order=second out, or use backend=native"
            )
        return self

    def own_model(self) -> Model:
        """The size of the final network."""
        return self.retrain.model()

    def plan(self, task: Task) -> Plan:
        """Search, training."""
        own = searching(task, self.search, spaces.darts(self.search_channels, self.search_cells))
        functions = {
            "native": "methods.nas.darts.search:search",
            "nni": "methods.nni_bridge.nas:search",
        }
        searched = Stage(functions[self.backend], DartsSearch(task=own, order=self.order, alphas=self.alphas))
        return _ends([(Phase.COMPRESS, searched)], self.retrain.retraining(task), task)

    def check(self, task: Task) -> None:
        """Raise ValueError where the networks cannot be built, or the images are too few."""
        check_searchable(task, share=0.5)
        self.retrain.check(task)
        if self.backend == "nni":
            from methods.nni_bridge.nas import why_unavailable  # imports torch

            why = why_unavailable()
            if why:
                raise ValueError(why)
        _check_builds(self.own_model(), {"genotype": PUBLISHED["DARTS_V2"]}, task)


class Given(Config):
    """Train a network of a published architecture: nothing is searched here, and the cost of its search is unknown.

    Either `genotype` names cells of DARTS (trained as `retrain` says), or `space`, `size` and `architecture` (the
    builder's further arguments) name a network of another space. `found` says where the architecture comes from.
    """

    genotype: Literal["DARTS_V1", "DARTS_V2"] | None = None
    space: str | None = None
    size: str = ""
    architecture: Mapping[str, Any] | None = None
    found: str
    retrain: Regularised = Regularised()

    @model_validator(mode="after")
    def _one_of_them(self) -> Given:
        if (self.genotype is None) == (self.space is None):
            raise ValueError("a published architecture is a genotype, or a space with its architecture: give one")
        if (self.space is None) != (self.architecture is None):
            raise ValueError("space and architecture go together")
        return self

    def own_model(self) -> Model:
        """The network's space and size; a network of cells also has the name of its genotype."""
        if self.genotype is not None:
            model = self.retrain.model()
            return model.model_copy(update={"name": f"{model.name}-{self.genotype}"})
        assert self.space is not None, "validated"
        return spaces.space_of(self.space, self.size).model

    def _architecture(self) -> Mapping[str, Any]:
        if self.genotype is not None:
            return {"genotype": PUBLISHED[self.genotype]}
        assert self.architecture is not None, "validated"
        return self.architecture

    def plan(self, task: Task) -> Plan:
        """Only the training; the search is declared as not measured."""
        architecture = self._architecture()
        if self.genotype is not None:
            params = self.retrain.retraining(task, architecture)
        else:
            params = Retraining(task=plain(task), architecture=architecture)
        return _ends([], params, task, {Phase.COMPRESS: f"the search was not measured: {self.found}"})

    def check(self, task: Task) -> None:
        """Raise ValueError where the network cannot be built, or cannot be trained on the task's images."""
        if self.genotype is not None:
            self.retrain.check(task)
        _check_builds(self.own_model(), self._architecture(), task)


class InSpace(Config):
    """The common fields of searches in a space of edges: the space (see `spaces.space_of`), and its size."""

    space: str = "pmb"
    size: str = "s"

    def own_model(self) -> Model:
        """The space and its size."""
        return spaces.space_of(self.space, self.size).model

    @model_validator(mode="after")
    def _is_there(self) -> InSpace:
        spaces.space_of(self.space, self.size)
        return self

    def check(self, task: Task) -> None:
        """Raise ValueError where a network of the space cannot be built."""
        space = spaces.space_of(self.space, self.size)
        _check_builds(space.model, space.architecture([ops[0] for ops in space.edges]), task)


class Proxyless(InSpace):
    """Search one operation per edge by gradients, few paths at a time, and train the network that is found.

    `search` trains the weights, for its epochs after `weights_only_epochs`. After every `every`-th step the
    architecture takes a step on the share `held_out` of the images. `mode` says how: by the gates of two paths, by
    those of all paths (full), or by the rewards of `samples` paths (reinforce). `costs` adds the cost of an
    architecture to its loss: null, or MACs, measured latency or measured energy.
    """

    search: Recipe
    weights_only_epochs: int = Field(default=25, ge=0)
    weights_only_lr: float = Field(default=0.05, gt=0)
    mode: Literal["two", "full", "reinforce"] = "two"
    samples: int = Field(default=10, gt=1)
    every: int = Field(default=5, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    alphas: Alphas
    costs: Costs | None = None
    table_batch: int = Field(default=128, gt=0)
    table_seconds: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _settings_are_used(self) -> Proxyless:
        if self.mode != "reinforce" and self.samples != type(self).model_fields["samples"].default:
            raise ValueError("samples is only for mode=reinforce: leave it out")
        if self.mode == "reinforce" and self.costs is not None and self.costs.rule != "add":
            raise ValueError("mode=reinforce has its own rule (reward times (E_ref / E)^weight): leave rule out")
        return self

    def plan(self, task: Task) -> Plan:
        """A table of costs where these are measured, the search, and the training."""
        space = spaces.space_of(self.space, self.size)
        own = searching(task, self.search, space.model)
        steps, inputs = [], {}
        if self.costs is not None and self.costs.kind != "macs":
            table = Stage("methods.nas.proxyless.costs:table", self._table(task, space), bound=Bound.DEVICE)
            steps.append((Phase.COMPRESS, table))
            inputs["costs"] = table
        params = ProxylessSearch(
            task=own,
            space=space,
            mode=self.mode,
            samples=self.samples,
            alphas=self.alphas,
            every=self.every,
            held_out=self.held_out,
            weights_only_epochs=_at_most(self.weights_only_epochs, task),
            weights_only_lr=self.weights_only_lr,
            costs=self.costs,
        )
        steps.append((Phase.COMPRESS, Stage("methods.nas.proxyless.search:search", params, inputs)))
        return _ends(steps, Retraining(task=plain(task)), task)

    def _table(self, task: Task, space: spaces.Space) -> CostTable:
        """The parameters of the table; they hold no images and no recipe, so one table serves every search of a
        space."""
        bare = searching(task, self.search, space.model)
        nothing = Recipe(name="none", epochs=1, batch_size=1, lr=1, mean=(0, 0, 0), std=(1, 1, 1))
        scale = type(task.scale)(name="none")
        update = {"recipe": nothing, "scale": scale, "seed": 0, "data": plain(task).data}
        own = bare.model_copy(update=update)
        return CostTable(task=own, space=space, batch_size=self.table_batch, seconds=self.table_seconds)

    def check(self, task: Task) -> None:
        """As `InSpace`; also raise ValueError where there are too few images to hold some out."""
        super().check(task)
        check_searchable(task, share=self.held_out)


class ZeroCost(InSpace):
    """Score untrained networks and train the best one: the search needs no training.

    `candidates` architectures are drawn. With two proxies the winner has the best sum of the logarithms of its ranks.
    """

    candidates: int = Field(default=1000, gt=0)
    images: int = Field(default=128, gt=1)
    proxies: tuple[Literal["synflow", "naswot"], ...] = Field(default=("synflow", "naswot"), min_length=1)

    def plan(self, task: Task) -> Plan:
        """Scores, training."""
        space = spaces.space_of(self.space, self.size)
        own = searching(task, _only_constants(task.recipe), space.model)
        params = ZeroCostSearch(
            task=own.model_copy(update={"train_precision": "fp32"}),  # scores are computed in fp32 or finer
            candidates=self.candidates,
            images=self.images,
            proxies=self.proxies,
            space=space,
        )
        searched = Stage("methods.nas.training_free.search:score", params)
        return _ends([(Phase.COMPRESS, searched)], Retraining(task=plain(task)), task)

    def check(self, task: Task) -> None:
        """As `InSpace`; also raise ValueError where there are fewer images than naswot must compare."""
        super().check(task)
        there = task.scale.train_images
        if "naswot" in self.proxies and there is not None and there < self.images:
            raise ValueError(f"method.images={self.images}: scale {task.scale.name} has {there} training images")


def _only_constants(recipe: Recipe) -> Recipe:
    """The recipe with its normalisation only: scores do not depend on the training, so their key must not either."""
    return Recipe(name="none", epochs=1, batch_size=1, lr=1, mean=recipe.mean, std=recipe.std)


class RandomChoice(InSpace):
    """Train some random networks briefly, then train the best one in full: the reference for every search.

    The best one is chosen on images held out of training, never on the test set. `search` is the brief training.
    """

    search: Recipe
    candidates: int = Field(default=8, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)

    def plan(self, task: Task) -> Plan:
        """Brief trainings, training."""
        space = spaces.space_of(self.space, self.size)
        own = searching(task, self.search, space.model)
        params = RandomSearch(task=own, candidates=self.candidates, held_out=self.held_out, space=space)
        searched = Stage("methods.nas.training_free.search:try_out", params)
        return _ends([(Phase.COMPRESS, searched)], Retraining(task=plain(task)), task)

    def check(self, task: Task) -> None:
        """As `InSpace`; also raise ValueError where there are too few images to hold some out."""
        super().check(task)
        check_searchable(task, share=self.held_out)


# --- what they share ---------------------------------------------------------------------------------------------


def searching(task: Task, recipe: Recipe, space: Model) -> Task:
    """The task of a search: its own data, recipe and space, and nothing about the final network.

    Raises ValueError for settings that a search's own loop does not support.
    """
    if task.train_precision == "fp16":
        raise ValueError("train_precision=fp16: a search has no gradient scaler; use bf16, tf32 or fp32")
    if task.profile == "published":
        raise ValueError("profile=published: searches do not reproduce the original's loop; leave it out")
    data = _searched(task.data)
    short = data.normalised(recipe.model_copy(update={"epochs": _at_most(recipe.epochs, task)}))
    own = with_recipe(plain(task), short)
    return own.model_copy(update={"data": data, "model": space, "compile": False})


def _searched(data: Data) -> Data:
    """The data set on which an architecture is searched."""
    if data.search == data.name:
        return data.model_copy(update={"search": Data.model_fields["search"].default})
    return Data(name=data.search, classes=OURS[data.search] or data.classes)


def _at_most(epochs: int, task: Task) -> int:
    longest = task.scale.max_epochs
    return epochs if longest is None else min(epochs, longest)


def _ends(
    steps: list[tuple[Phase, Stage]], params: Retraining, task: Task, unmeasured: Mapping[Phase, str] | None = None
) -> Plan:
    """The plan that ends in the training of the architecture from the last step, or from the parameters."""
    inputs = {"searched": steps[-1][1]} if steps else {}
    trained = Stage("methods.nas.stages:retrain", params, inputs)
    return Plan(
        steps=(*steps, (Phase.RETRAIN, trained)),
        network=trained,
        deploy=Precision(task.deploy_precision),
        unmeasured=dict(unmeasured or {}),
    )


def check_searchable(task: Task, share: float) -> None:
    """Raise ValueError where a search has too few images to split."""
    images = task.scale.train_images
    if images is not None and round(images * share) < 2:
        raise ValueError(f"scale.train_images={images}: a share of {share:g} leaves too few to search on: use more")


def _check_builds(space: Model, architecture: Mapping[str, Any], task: Task) -> None:
    """Build a network of the space on the meta device. Raises ValueError with the cause."""
    from methods.baseline import check_builds  # imports torch

    model = space.model_copy(update={"kwargs": {**space.kwargs, **architecture}})
    check_builds(task.model_copy(update={"model": model}))
