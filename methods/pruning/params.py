"""The parameters of pruning's stages, and how filters are scored and chosen. Needs no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from benchmark.plan.task import Config, Effort, Given, Params, Task
from methods.way import Continued

Backend = Literal["native", "nni"]
Mode = Literal["independent", "dependency_aware"]
LayerSet = Literal["all", "nni", "nni_conv13", "nni_resnet"]


def _is_function_name(word: str) -> str:
    module, _, name = word.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("a function is named module:function, as in methods.pruning.criteria.l1:l1")
    return word


FunctionName = Annotated[str, AfterValidator(_is_function_name)]
"""The dotted name of a function, from the command's configuration. A stage imports it; planning does not."""


class Scoring(Config):
    """How filters are scored: the criterion's function, its settings, and the number of training steps it looks at."""

    criterion: FunctionName
    settings: dict[str, bool | int | float | str] = Field(default={})
    batches: int = Field(default=0, ge=0)


class Choice(Config):
    """Which filters are removed: how they are scored, in which layers, which share of each layer, and who decides.

    We decide, or NNI's pruner, which the function `nni_pruner` makes.
    """

    scoring: Scoring
    sparsity: float = Field(ge=0, lt=1)
    layers: LayerSet = "all"
    mode: Mode = "independent"
    nni_pruner: FunctionName | None = None


class Masking(Continued):
    """Parameters of `methods.pruning.stages:mask`. The recipe of `task` is that of the steps to look at, if any."""

    trains: ClassVar[bool] = False
    version: int = 2  # balanced pieces; this stage no longer imports NNI or trains the extra epoch
    choice: Choice

    def effort(self, given: Given) -> Effort:
        """The training steps that the criterion looks at, and sorting."""
        looked_at = self.task.shown(self.choice.scoring.batches * self.task.recipe.batch_size, trains=True)
        return Effort((looked_at,), seconds=2)


class ExtraTraining(Continued):
    """Parameters of `methods.pruning.stages:extra_epochs`. The recipe of `task` is that of the extra epochs.

    `masked`: the masks hold during the training. Otherwise the dense network trains and is masked at the end.
    """

    masked: bool


class Shrinking(Params):
    """Parameters of `methods.pruning.stages:shrink`."""

    trains: ClassVar[bool] = False
    version: int = 2  # this stage no longer imports NNI
    task: Task
    backend: Backend = "native"

    def effort(self, given: Given) -> Effort:
        """Copying tensors."""
        return Effort(seconds=2)
