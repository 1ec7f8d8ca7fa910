"""What the stages of pruning take: how filters are scored and chosen, and the stages' parameters. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.plan.task import Config, Params, Task

CriterionName = Literal["l1", "l2", "fpgm", "apoz", "taylorfo", "activation_mean"]
Backend = Literal["native", "nni"]
Mode = Literal["independent", "dependency_aware"]
LayerSet = Literal["all", "nni", "nni_conv13", "nni_resnet"]

ITERATIVE = ("apoz", "taylorfo", "activation_mean")
"""NNI's word for the criteria that look at data; nothing iterates."""


class Scoring(Config):
    """How filters are scored: `batches` training steps are looked at; the other choices count for some criteria."""

    criterion: CriterionName
    batches: int = Field(default=1, ge=1)
    activation: Literal["relu", "relu6"] = "relu"
    activation_site: Literal["pre_bn", "post_bn"] = "pre_bn"
    taylor_weights: Literal["pre", "post"] = "post"


class Choice(Config):
    """Which filters go: how they are scored, in which layers, which share of each, and who decides."""

    scoring: Scoring
    sparsity: float = Field(ge=0, lt=1)
    layers: LayerSet = "all"
    mode: Mode = "independent"
    backend: Backend = "native"


class Continued(Params):
    """Parameters of a stage that goes on after `first_epoch` epochs of earlier ones: its draws (order of the images,
    crops, flips) are theirs continued, not repeated."""

    task: Task
    first_epoch: int = 0


class Masking(Continued):
    """Parameters of `methods.pruning.stages:mask`. The recipe of `task` is that of the steps looked at, if any."""

    version: int = 2  # balanced pieces; the import of NNI and the extra epoch left this stage
    choice: Choice


class ExtraTraining(Continued):
    """Parameters of `methods.pruning.stages:extra_epochs`. The recipe of `task` is that of the extra epochs.

    `masked`: the masks hold while it trains; else the network trains dense and is masked at the end.
    """

    masked: bool


class Shrinking(Params):
    """Parameters of `methods.pruning.stages:shrink`."""

    version: int = 2  # the import of NNI left this stage
    task: Task
    backend: Backend = "native"


class FineTuning(Continued):
    """Parameters of `methods.pruning.stages:finetune`. The recipe of `task` is that of the fine-tuning."""
