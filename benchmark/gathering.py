"""`data`: makes a data set of one's own, and the YAML that names it."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.common import say
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.plan.task import Data
    from benchmark.vision.gather import How

WORDS = {
    "from": ("", "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE, or an .npz file of arrays"),
    "name": ("", "what data=NAME will call it; name=cifar100 (or cifar10) alone downloads and checks that one"),
    "to": ("configs", "where data/NAME.yaml goes: a folder for --config-dir"),
    "paths.data": ("data", "where NAME.npz goes"),
    "test_share": ("0.2", "share of each class that is drawn for the test, where there is no test folder"),
    "seed": ("0", "decides that draw"),
    "resize": ("false", "true: cut the middle square out and scale it to 32 x 32"),
}
"""What the command takes: the usual value (none: it must be said), and what it means."""
SEE = "python -m benchmark data --help lists what it takes"


def data(words: list[str]) -> int:
    """Make {paths.data}/NAME.npz from images, and {to}/data/NAME.yaml, which names its content: data=NAME takes it.

    With name=cifar100 (or cifar10) alone, download that data set where it is missing.
    """
    from pydantic import ValidationError

    from benchmark.plan.task import OURS, Data
    from benchmark.vision.gather import constants, gather
    from benchmark.vision.own_data import digest, path_of, write

    given = _given(words)
    if given["name"] in OURS:
        return _fetch(given)
    gathered = gather(Path(given["from"]).expanduser(), _how(given), say)
    mean, std = constants(gathered.arrays)
    values: dict[str, Any] = {
        "name": given["name"],
        "classes": len(gathered.classes),
        "train_images": len(gathered.arrays["train_labels"]),
        "test_images": len(gathered.arrays["test_labels"]),
        "sha256": digest(gathered.arrays),
        "mean": mean,
        "std": std,
        "search": given["name"],
    }
    try:
        made = Data.model_validate(values)
    except ValidationError as error:
        told = (".".join(map(str, each["loc"])) + ": " + each["msg"] for each in error.errors())
        raise UserError("; ".join(each.removeprefix(": ").removeprefix("Value error, ") for each in told)) from error
    path = path_of(made, Path(given["paths.data"]).expanduser())
    named = Path(given["to"]).expanduser() / "data" / f"{made.name}.yaml"
    _refuse_another(named, path, made)
    named.parent.mkdir(parents=True, exist_ok=True)  # before the images: where it cannot be made, nothing is left
    write(path, gathered.arrays)
    if not named.exists():
        named.write_text(_yaml(values, gathered.classes, words))
    for line in gathered.notes:
        say(f"note: {line}")
    print(f"{path}: {made.train_images:,} training and {made.test_images:,} test images, {made.classes} classes")
    print(f"{named}: choose it by data={made.name}, with --config-dir {given['to']} unless that is the suite's own")
    return 0


def _given(words: Sequence[str]) -> dict[str, str]:
    """The words by their names, usual values where they are not said. Raises UserError."""
    from benchmark.plan.task import OURS

    given = {name: usual for name, (usual, _) in WORDS.items()}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in WORDS or not equals:
            raise UserError(f"data: what is {word}? {SEE}")
        given[name] = value
    if given["name"] in OURS:
        kept = ("name", "paths.data")
        ignored = [name for name, (usual, _) in WORDS.items() if name not in kept and given[name] != usual]
        if ignored:
            raise UserError(f"name={given['name']} is one of the suite's own: it takes no {ignored[0]}=; {SEE}")
        return given
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise UserError(f"data needs {' and '.join(f'{name}=' for name in missing)}; {SEE}")
    return given


def _fetch(given: Mapping[str, str]) -> int:
    """Download one of the suite's data sets where it is missing, and prove that it is whole."""
    from benchmark.plan.task import OURS, Data
    from benchmark.vision.download import ensure

    root = Path(given["paths.data"]).expanduser()
    ensure(Data(name=given["name"], classes=OURS[given["name"]] or 100), root, say)
    print(f"{given['name']} is whole under {root}" if OURS[given["name"]] else f"{given['name']} needs no file")
    return 0


def _how(given: Mapping[str, str]) -> How:
    from benchmark.vision.gather import How

    kinds: dict[str, Callable[[str], Any]] = {"test_share": float, "seed": int, "resize": _yes_or_no}
    read = {}
    for name, kind in kinds.items():
        try:
            read[name] = kind(given[name])
        except ValueError:
            raise UserError(f"data: {name}={given[name]} is none of the values it takes; {SEE}") from None
    if not 0 < read["test_share"] < 1 or read["seed"] < 0:
        raise UserError(
            f"test_share={given['test_share']} seed={given['seed']}: a share between 0 and 1, a seed from 0"
        )
    return How(**read)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _refuse_another(named: Path, path: Path, made: Data) -> None:
    """Raise UserError where the YAML or the file is there with other content: records may rest on it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # it ships no types

    from benchmark.vision.files import DataError, verify

    if named.exists():
        try:
            there = OmegaConf.to_container(OmegaConf.load(named))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{named} is there and cannot be read ({error}): move it away") from error
        if not isinstance(there, dict) or there.get("sha256") != made.sha256:
            raise UserError(f"{named} is there and names other content: choose another name, or move it away")
    if path.exists():
        try:
            verify(made, path.parent)
        except DataError as error:
            raise UserError(
                f"{path} is there and holds something else: choose another name, or move it away"
            ) from error


def _yaml(values: dict[str, Any], classes: Sequence[str], words: Sequence[str]) -> str:
    """The file, every text as JSON writes it: a class named by a stranger stays within its line."""
    day = datetime.date.today().isoformat()
    lines = [f"# Made {day} by: python -m benchmark data {json.dumps(shlex.join(words))[1:-1]}"]
    lines.append(f"# The classes, from 0 on: {json.dumps(list(classes))}")
    lines += [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
