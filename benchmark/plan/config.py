"""configs/ -> a typed, frozen `Experiment`. The only file that sees Hydra's DictConfig. Torch-free."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import BaseModel, Field, ValidationError, model_validator

from benchmark.plan import own_code
from benchmark.plan.asked import Asked, as_list
from benchmark.plan.deployment import Here, Inference, choose_engine
from benchmark.plan.fitted import fitted
from benchmark.plan.folders import CONFIGS as CONFIGS
from benchmark.plan.folders import ConfigError as ConfigError
from benchmark.plan.folders import groups as groups
from benchmark.plan.folders import names as names
from benchmark.plan.folders import near as near
from benchmark.plan.folders import search_path
from benchmark.plan.grammar import unreadable
from benchmark.plan.stage import Phase, Plan
from benchmark.plan.task import MOST_SEED, Calibrating, Config, Data, Task
from benchmark.plan.where import Hardware as Hardware
from benchmark.plan.where import Paths as Paths
from benchmark.plan.words import AS_HYDRA, ROLES, as_hydra
from benchmark.plan.words import check_words as check_words

if TYPE_CHECKING:
    from omegaconf import DictConfig


NO_PARAMETERS = ("_target_", "name", "recipe")
"""What a `method:` block holds beside the method's own hyper-parameters: its class, its name for people and, of one
that brings its own network, the recipe that this is trained by."""


MOST_SEEDS = 1000
"""More repetitions than anybody waits for: a slip of the pen."""


class Method(Protocol):
    """A frozen set of hyper-parameters that knows which stages it needs.

    One that brings its own network (an architecture search) has `own_model() -> Model`, too, and its file a `recipe:`;
    then no model may be named beside it.
    """

    def plan(self, task: Task) -> Plan: ...
    def check(self, task: Task) -> None: ...
    def identity(self) -> dict[str, Any]: ...


class Experiment(Config):
    """One life cycle to measure, for one or more seeds."""

    method: dict[str, Any]
    task: Task
    hardware: Hardware
    inference: Inference
    engine: str
    seeds: int = Field(ge=1, le=MOST_SEEDS)
    asked: Asked
    paths: Paths

    @model_validator(mode="after")
    def _last_seed_exists(self) -> Experiment:
        if self.task.seed + self.seeds - 1 > MOST_SEED:
            raise ValueError(f"seed={self.task.seed} seeds={self.seeds}: the last seed is above {MOST_SEED}")
        return self

    def tasks(self) -> Iterator[Task]:
        """The task of every seed."""
        for number in range(self.seeds):
            yield self.task.model_copy(update={"seed": self.task.seed + number})

    def build_method(self) -> Method:
        """The method object, its hyper-parameters checked. Raises ConfigError."""
        return _method(self.method)

    def plan(self) -> Plan:
        """What the method promises for the first seed. Raises ConfigError where no plan can be made."""
        try:
            return self.build_method().plan(self.task)
        except ValueError as error:
            raise ConfigError(f"method {self.method['name']}: {error}") from error

    def slug(self, deploy_precision: str) -> str:
        """What the experiment is about, readable, as a part of a file's name; its plan says what is deployed."""
        task = self.task
        parts = [self.method["name"], task.model.name, task.data.name, task.scale.name, task.profile]
        return "-".join([*parts, task.train_precision, deploy_precision, self.engine]).replace("/", ".")


def one_place(experiments: Sequence[Experiment]) -> Experiment:
    """The first of some experiments that run together. Raises ConfigError unless they share folders and
    hardware."""
    for name in ("paths", "hardware", "asked"):
        found = {str(getattr(each, name)) for each in experiments}
        if len(found) > 1:
            said = "what their report is asked for" if name == "asked" else name
            raise ConfigError(f"experiments that run together must share {said}; found {' and '.join(sorted(found))}")
    return experiments[0]


def compose(overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition of configs/, and of the folders of --config-dir, with `overrides`.

    Raises ConfigError naming the nearest valid names.
    """
    overrides = [as_list(word) for word in overrides]
    check_words(overrides)
    for word in overrides:
        name, _, choice = word.partition("=")
        if name.lstrip("+").startswith("hydra"):
            raise ConfigError(f"{word}: no job of Hydra's runs here, so its settings would change nothing")
        if name in (*groups(), *ROLES) and "," in choice:
            raise ConfigError(f"{word}: several choices need a sweep: run -m {word}, or plan -m {word} to see it first")
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _compose(as_hydra(overrides))
    except OverrideParseException as error:
        raise ConfigError(unreadable(as_hydra(overrides), _first_line(error))) from error
    except (HydraException, OmegaConfBaseException) as error:
        if "Ambiguous value" in str(error):  # Hydra's words for a list without brackets
            remedy = "several values need a sweep (run -m), a list needs brackets"
            raise ConfigError(f"{_first_line(error)}: {remedy}") from error
        raise ConfigError(_first_line(error) + _near_key(as_hydra(overrides))) from error


def _compose(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra_compose("config", overrides=[*overrides, *search_path()])


def parse(config: DictConfig | dict[str, Any], here: Here) -> tuple[Experiment, list[str]]:
    """The typed experiment of a composed config on this machine, and notes on what was changed for it.

    Raises ConfigError on a wrong type, an out-of-range value, an unknown name or an impossible combination.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = config if isinstance(config, dict) else _whole(config)
        words = copy.deepcopy(plain)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    _check_blocks(words)
    notes = _adapt(words, here)
    values = {
        "task": {name: words.pop(name) for name in Task.model_fields if name in words},
        "asked": {name: words.pop(name) for name in Asked.model_fields if name in words},
        **{name: words.pop(name) for name in ("method", "hardware", "inference", "engine", "seeds", "paths")},
    }
    if words:
        raise ConfigError(f"unknown: {', '.join(sorted(words))}")
    parsed = experiment(values)
    _check_engine(parsed, here)
    return parsed, notes


def _whole(config: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _check_blocks(words: Mapping[str, Any]) -> None:
    """Refuse a plain value in the place of a block of settings. Raises ConfigError."""
    for name in ("hardware", "inference", "paths", "scale", "data", "recipe", "method", "calibration", "max_drop_pct"):
        if not isinstance(words.get(name), dict):
            raise ConfigError(f"{name} is a block of settings: write {name}.NAME=value, not {name}={words.get(name)}")
    for name in ("model", "teacher", "teacher_recipe"):
        if not isinstance(words.get(name), dict | None):
            raise ConfigError(f"{name} is a block of settings, chosen by {name}=, and not {words.get(name)}")


def experiment(values: Mapping[str, Any]) -> Experiment:
    """An experiment from plain values (a composed config, or a stored run). Raises ConfigError."""
    try:
        parsed = Experiment.model_validate(_with_own_model(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, Experiment)) from error
    plan = parsed.plan()
    _check_teacher(parsed, plan)
    _check_used(parsed, plan)
    return parsed


def _with_own_model(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with the model that their method brings, where it does. Raises ConfigError."""
    block = values.get("method")
    if not isinstance(block, Mapping) or not isinstance(values.get("task"), Mapping):
        return values  # pydantic says what is wrong
    own = getattr(_method(block), "own_model", None)
    if own is None:
        return values
    if not block.get("recipe"):
        raise ConfigError(f"method {block.get('name')} brings its own network: its file must name a recipe: for it")
    try:
        return {**values, "task": {**values["task"], "model": own()}}
    except ValueError as error:
        raise ConfigError(f"method {block.get('name')}: {error}") from error


def _check_engine(parsed: Experiment, here: Here) -> None:
    """Refuse an engine that does not exist, and settings that nothing would look at. Raises ConfigError."""
    precision, kind = parsed.plan().deploy.name, here.kind(parsed.engine)
    if kind is None:
        names = ["auto", *(each.name for each in here.engines)]
        raise ConfigError(f"unknown engine {parsed.engine!r}{near(parsed.engine, names)}")
    if precision != "int8" and parsed.task.calibration != Calibrating():
        raise ConfigError(f"calibration: only INT8 is calibrated, and {precision} is deployed: leave calibration.* out")
    if parsed.plan().deploy.scales is not None and parsed.task.calibration != Calibrating():
        raise ConfigError(f"calibration: method {parsed.method['name']} brings its own scales: leave calibration.* out")
    buffers = parsed.inference.buffers
    if buffers not in kind.buffers:
        raise ConfigError(f"inference.buffers={buffers}: engine={kind.name} runs on {' or '.join(kind.buffers)}")


def _check_teacher(parsed: Experiment, plan: Plan) -> None:
    """Refuse a teacher that the method's plan does not ask for. Raises ConfigError."""
    method, task = parsed.build_method(), parsed.task
    if task.teacher is None:
        return
    alone = task.model_copy(update={"teacher": None, "teacher_recipe": None, "teacher_seed": None})
    try:
        ignored = method.plan(alone) == plan
    except ValueError:
        ignored = False  # it cannot do without
    if ignored:
        raise ConfigError(f"method {parsed.method['name']} learns from no teacher: leave out pair= and teacher=")


def _check_used(parsed: Experiment, plan: Plan) -> None:
    """Refuse settings of a search, and of a base training, where the plan has none. Raises ConfigError."""
    task, name = parsed.task, parsed.method["name"]
    if task.base_precision is not None and all(phase is not Phase.BASE for phase, _ in plan.steps):
        raise ConfigError(f"base_precision: method {name} has no base training: leave it out")
    search, default = task.data.search, Data.model_fields["search"].default
    if search not in (default, task.data.name):
        here = task.model_copy(update={"data": task.data.model_copy(update={"search": default})})
        if parsed.build_method().plan(here) == plan:
            raise ConfigError(f"data.search={search}: method {name} searches nothing: leave it out")


def _adapt(words: dict[str, Any], here: Here) -> list[str]:
    """Resolve what depends on the device and on the scale, in place; returns a line for every change a user should
    know of."""
    notes = []
    words["hardware"]["executor"] = words.pop("executor")
    trained_here = words["hardware"].get("train") is None
    if here.device_kind == "cpu" and trained_here and words["train_precision"] in ("tf32", "bf16", "fp16"):
        notes.append(f"train_precision is fp32: {words['train_precision']} needs a GPU")
        words["train_precision"] = "fp32"
    try:
        words["engine"], why = choose_engine(here, str(words["engine"]))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    notes += [why] if why else []
    longest = words["scale"].get("max_epochs")
    for name in ("recipe", "teacher_recipe"):
        recipe = words.get(name)
        if not isinstance(recipe, dict) or not isinstance(longest, int) or not isinstance(recipe.get("epochs"), int):
            continue  # what is of another type is refused by its type
        if recipe["epochs"] > longest > 0:
            recipe["epochs"] = longest
    notes += fitted(words)
    for block in filter(None, (words.get("model"), words.get("teacher"))):
        block.pop("recipe", None)  # the name of its own recipe: it has been chosen by it
        if "code" in block:
            raise ConfigError("model.code is no setting: it is what the files of the network say")
        if code := own_code.digest(str(block.get("builder"))):
            block["code"] = code
    _choose_results(words)
    return notes


def _choose_results(words: dict[str, Any]) -> None:
    """Where records go unless somebody says so: what is thrown away stays apart."""
    if words["paths"].get("results") is None:
        scale = words["scale"].get("name")
        throw_away = scale == "smoke" or words["data"].get("name") == "synthetic"
        apart = "results/.smoke" if throw_away else "results/.demo" if scale == "demo" else "results"
        words["paths"]["results"] = apart


def report_of(config: DictConfig) -> tuple[Paths, Asked]:
    """The folders of a composed config, and what its report is asked for. Raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        words = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    _check_blocks(words)
    _choose_results(words)
    try:
        asked = Asked.model_validate({name: words[name] for name in Asked.model_fields if name in words})
        return Paths.model_validate(words["paths"]), asked
    except ValidationError as error:
        raise ConfigError(_explain(error, Asked)) from error


def _method(values: Mapping[str, Any]) -> Method:
    """The method object of a `method:` block: `_target_` names a class, `name` is for people, the rest are its
    hyper-parameters."""
    target = str(values.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"method {values.get('name')}: cannot import {module!r} ({error}): is its folder on PYTHONPATH?"
        ) from error
    if kind is None:
        raise ConfigError(f"method {values.get('name')}: {module} has no {name!r}")
    parameters = {key: value for key, value in values.items() if key not in NO_PARAMETERS}
    try:
        return cast(Method, kind.model_validate(parameters))
    except ValidationError as error:
        raise ConfigError("method." + _explain(error, kind)) from error


def _near_key(overrides: Sequence[str]) -> str:
    """The remedy: the nearest dotted names of the first override whose dotted name does not exist; or how to add to a
    block, where one that exists was given names that it has not."""
    from omegaconf import OmegaConf

    known = {*groups(), *AS_HYDRA.values()}
    choices = [word for word in overrides if word.partition("=")[0] in known and "," not in word]
    plain = OmegaConf.to_container(_compose(choices))
    keys = list(_flat_keys(plain))
    for override in overrides:
        word = override.partition("=")[0]
        if word.startswith("method.") and word not in keys:
            own = [key for key in keys if key.startswith("method.") and key.rpartition(".")[2] not in NO_PARAMETERS]
            return near(word, own) if difflib.get_close_matches(word, own) else "" if own else ": it has no settings"
        if word not in keys and word not in groups():
            return near(word, keys) if difflib.get_close_matches(word, keys) else ""
    block = next((word.partition("=")[0] for word in overrides if word.partition("=")[2].startswith("{")), "")
    return f": a name that it has not is added by +{block}.NAME=VALUE" if block else ""


def _flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flat_keys(value, f"{prefix}{key}.")


def _first_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Pydantic's findings in one line: where, what, what was given, and near names for an unknown one."""
    lines = []
    for finding in error.errors():
        where = ".".join(str(part) for part in finding["loc"]).removeprefix("task.").removeprefix("asked.")
        told = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown name{near(str(finding['loc'][-1]), _fields_at(kind, finding['loc'][:-1]))}")
        elif finding["type"] == "missing":
            lines.append(f"{where}: missing")
        elif isinstance(finding["input"], BaseModel | dict):  # of a whole block: too much to show
            lines.append(f"{where}: {told}" if where else told)
        else:
            lines.append(f"{where}: {told} (got {finding['input']!r})"[:400])
    return "; ".join(lines)


def _fields_at(kind: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    """The field names of the model that lies at `where` below `kind`; none where that is no model."""
    for part in where:
        field = kind.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        kind = field.annotation
    return list(kind.model_fields)
