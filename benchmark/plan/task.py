"""What an experiment is about: data, model, scale and recipe, as frozen typed values. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

TrainPrecision = Literal["fp32", "tf32", "bf16", "fp16"]
HalfPrecision = Literal["bf16", "fp16"]
DeployPrecision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
Profile = Literal["fast", "published"]
OriginalName = Literal["nni", "repdistiller"]

MOST_SEED = 2**32 - 1
"""The largest seed that every generator takes (numpy's is the smallest of them)."""
MOST_IMAGES = 1_000_000
"""More than any data set here has, and than the synthetic one could hold in memory."""


class Config(BaseModel):
    """A frozen, typed set of values; an unknown name, a wrong type or an out-of-range value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The values that differ from their defaults: what enters a key, so that a new field with a default changes
        none.

        For the same reason a default never changes: change the YAML instead.
        """
        return self.model_dump(mode="json", exclude_defaults=True)


class Passes(NamedTuple):
    """Images that a stage shows to a network, in batches of `batch`: forward, or where it `trains` backward, too.

    `times` is the size of the network beside that of `model` (a supernet holds several of its kind).
    """

    model: Model
    images: float
    batch: int
    trains: bool
    times: float = 1.0


class Effort(NamedTuple):
    """What a stage will do, for forecasts: passes through networks, and seconds that depend on none."""

    passes: tuple[Passes, ...] = ()
    seconds: float = 0.0


class Params(Config):
    """The parameters of a stage function.

    Raise `version` in a subclass when the function's arithmetic or its energy per step changes: it is in the key.
    """

    version: int = 1

    def effort(self, given: Given) -> Effort | None:
        """What the stage will do, `given` stages with these parameters; None where nobody knows.

        It serves forecasts, and is in no key.
        """
        return None


Given = Mapping[str, Params]
"""The parameters of the stages that another rests on, by the name of the input."""


class Model(Config):
    """A network: `builder` is a dotted `module:function` that takes `classes` and `kwargs` and returns a module.

    `code` is the digest of the builder's files where it is none of the zoo's (`plan.own_code`), and empty else.
    """

    name: str
    builder: str
    kwargs: dict[str, Any] = {}
    code: str = ""


OURS = {"cifar10": 10, "cifar100": 100, "synthetic": None}
"""The data sets that need no file of the user's, with their classes (None: any number)."""
OWN_NAME = re.compile(r"(?!(null|true|false|inf|nan|none|con|nul|aux|prn)$)[a-z][a-z0-9_-]*", re.IGNORECASE)
"""What stands for itself as a choice on the command line, and as a file's name."""


class Data(Config):
    """A data set. Images are 32 x 32 RGB. `search` is the data set on which an architecture is searched (NAS only).

    One of the user's own has the numbers of its images and the `sha256` of its content (`vision.own_data.digest`); its
    file is {paths.data}/NAME.npz. Its `mean` and `std`, per channel and of pixels between 0 and 1, take the place of
    every recipe's.
    """

    name: str
    classes: int = Field(gt=1)
    search: str = "cifar100"
    train_images: int = Field(default=50_000, gt=1, le=MOST_IMAGES)
    test_images: int = Field(default=10_000, gt=0, le=MOST_IMAGES)
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @property
    def own(self) -> bool:
        """Whether it is the user's own."""
        return self.name not in OURS

    @property
    def shown(self) -> str:
        """The name in tables: of one's own with the beginning of its digest, since two contents are two data sets."""
        return f"{self.name}@{self.sha256[:12]}" if self.own else self.name

    def normalised(self, recipe: Recipe) -> Recipe:
        """A recipe with this data set's mean and std, where it has its own."""
        return recipe if self.mean is None else recipe.model_copy(update={"mean": self.mean, "std": self.std})

    @model_validator(mode="after")
    def _is_known(self) -> Data:
        if self.own:
            return self._checked_own()
        known = OURS[self.name]
        if known is not None and self.classes != known:
            raise ValueError(f"{self.name} has {known} classes, not {self.classes}")
        given = [name for name in ("train_images", "test_images", "sha256", "mean", "std") if name in self.identity()]
        if given:
            raise ValueError(f"{', '.join(given)}: {self.name} is what it is; this belongs to a data set of your own")
        return self._with_search()

    def _checked_own(self) -> Data:
        if not self.sha256:
            raise ValueError(
                f"unknown data set {self.name!r}: there are {', '.join(OURS)}; one of your own needs its file and the "
                f"sha256 of its content, which this makes: python -m benchmark data from=FOLDER name={self.name}"
            )
        if not OWN_NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r}: a letter, then letters, digits, dashes and underscores name a data set, "
                "and no word such as null or true does"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if not all(0 <= each <= 1 for each in self.mean or ()) or not all(1e-4 <= each <= 1 for each in self.std or ()):
            raise ValueError("mean and std are of pixels between 0 and 1, and std is 0.0001 or more")
        return self._with_search()

    def _with_search(self) -> Data:
        if self.search not in (*OURS, self.name):
            known = ", ".join([*OURS, *([self.name] if self.own else [])])
            raise ValueError(f"search={self.search}: an architecture can be searched on {known}")
        return self


class Scale(Config):
    """How much of the data and of the recipe is used. `None` means all of it."""

    name: str
    train_images: int | None = Field(default=None, gt=0, le=MOST_IMAGES)
    test_images: int | None = Field(default=None, gt=0, le=MOST_IMAGES)
    max_epochs: int | None = Field(default=None, gt=0)


class Recipe(Config):
    """How a network is trained: optimiser, schedule, augmentation and normalisation constants.

    `schedule="multistep"` multiplies the rate by `gamma` at each of `milestones` (fractions of `epochs`), stepped
    once an epoch; `"onecycle"` rises linearly to `lr` over the first `warmup` of the steps and falls linearly to zero,
    stepped every batch; `"cosine"` falls from `lr` towards `final_lr` along half a cosine, stepped once an epoch (so
    that `final_lr` itself is never reached), `"cosine_step"` the same, stepped every batch. All but onecycle may begin
    with `warmup_epochs` in which the rate rises linearly, batch by batch; a cosine takes the epochs that are left.
    `original` is the published loop the recipe comes from, whose loading, testing and reading back profile=published
    repeats; recipes of our own take NNI's, the plain one.
    `cutout` is the side, in pixels, of a square of zeros in every training image (0: none). The test set is looked at
    after every `test_every`-th epoch and after the last.
    """

    name: str
    epochs: int = Field(gt=0, le=1_000_000)
    batch_size: int = Field(gt=0, le=MOST_IMAGES)
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    nesterov: bool = False
    schedule: Literal["multistep", "onecycle", "constant", "cosine", "cosine_step"] = "multistep"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = Field(default=0.1, gt=0, le=1)
    warmup: float = Field(default=0.3, ge=0, lt=1)
    final_lr: float = Field(default=0.0, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augment: Literal["crop_flip", "flip_crop", "none"] = "crop_flip"
    crop_padding: int = Field(default=4, ge=0)
    cutout: int = Field(default=0, ge=0, multiple_of=2)
    test_every: int = Field(default=1, ge=1)
    original: OriginalName = "nni"

    @model_validator(mode="after")
    def _in_range(self) -> Recipe:
        if any(not 0 < fraction < 1 for fraction in self.milestones):
            raise ValueError(f"milestones are fractions of the epochs, between 0 and 1, not {self.milestones}")
        if any(deviation <= 0 for deviation in self.std):
            raise ValueError(f"std must be positive, not {self.std}")
        if self.warmup_epochs and self.schedule == "onecycle":
            raise ValueError("warmup_epochs does not go with schedule=onecycle, which warms up itself (warmup)")
        return self


class Calibrating(Config):
    """How the scales of an INT8 engine are found: on how many training images, and how a range is chosen.

    `percentile` is the share of values, in percent, that algorithm=percentile keeps.
    """

    algorithm: Literal["entropy", "percentile", "max"] = "entropy"
    images: int = Field(default=1024, gt=0, le=MOST_IMAGES)
    percentile: float = Field(default=99.99, gt=50, le=100)

    @model_validator(mode="after")
    def _percentile_is_used(self) -> Calibrating:
        if self.algorithm != "percentile" and self.percentile != Calibrating.model_fields["percentile"].default:
            raise ValueError(f"percentile={self.percentile} goes with algorithm=percentile, not {self.algorithm}")
        return self


class Task(Config):
    """One thing to learn: a model on a data set at a scale, with a seed and a recipe. A method plans its stages from
    it.

    `compile` has torch.compile fuse the training step of the fast profile: worth its minute on long runs alone.
    `base_precision` has the base training alone (a teacher's, where there is one) run under autocast; the rest of the
    life keeps `train_precision`. `teacher` is a network to learn from, trained by `teacher_recipe` with `teacher_seed`
    (None: the seed of the task).
    """

    model: Model
    data: Data
    scale: Scale
    recipe: Recipe
    seed: int = Field(ge=0, le=MOST_SEED)
    profile: Profile = "fast"
    train_precision: TrainPrecision
    base_precision: HalfPrecision | None = None
    compile: bool = False
    deploy_precision: DeployPrecision = "fp32"
    calibration: Calibrating = Calibrating()
    teacher: Model | None = None
    teacher_recipe: Recipe | None = None
    teacher_seed: int | None = Field(default=None, ge=0, le=MOST_SEED)

    @property
    def train_images(self) -> int:
        """The training images of an epoch: those of the scale, or all."""
        return self.scale.train_images or self.data.train_images

    @property
    def test_images(self) -> int:
        """The images that the accuracy is told of."""
        return self.scale.test_images or self.data.test_images

    def training(self) -> Passes:
        """The epochs of the recipe on the training images."""
        return self.shown(self.recipe.epochs * self.train_images, trains=True)

    def shown(self, images: float, trains: bool = False) -> Passes:
        """Images through the task's network, in batches of its recipe."""
        return Passes(self.model, images, self.recipe.batch_size, trains)

    @model_validator(mode="after")
    def _images_are_there(self) -> Task:
        if self.data.name == "synthetic":
            return self  # as many as one likes
        for name in ("train_images", "test_images"):
            asked, there = getattr(self.scale, name), getattr(self.data, name)
            if asked is not None and asked > there:
                raise ValueError(f"scale.{name}={asked}: {self.data.name} has {there}")
        return self

    @model_validator(mode="after")
    def _teacher_is_whole(self) -> Task:
        if (self.teacher is None) != (self.teacher_recipe is None):
            raise ValueError("a teacher needs a recipe, and a teacher's recipe a teacher: give teacher= or pair=")
        if self.teacher is None and self.teacher_seed is not None:
            raise ValueError("teacher_seed= goes with teacher= or pair=")
        return self

    @model_validator(mode="after")
    def _one_autocast(self) -> Task:
        if self.base_precision is not None and self.train_precision in ("bf16", "fp16"):
            raise ValueError(
                f"base_precision={self.base_precision} goes with train_precision=fp32 or tf32: with "
                f"{self.train_precision} every stage is trained under autocast"
            )
        return self

    @model_validator(mode="after")
    def _only_fast_compiles(self) -> Task:
        if self.compile and self.profile == "published":
            raise ValueError("compile belongs to the fast profile: no original was compiled")
        return self
