"""`data`: makes a data set of one's own, and the YAML that names it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.common import say
from benchmark.errors import UserError
from benchmark.plan.task import OURS

USAGE = (
    "python -m benchmark data from=FOLDER name=NAME: FOLDER holds train/CLASS/IMAGE and test/CLASS/IMAGE, or "
    "CLASS/IMAGE, or is an .npz file; further: to=configs paths.data=data test_share=0.2 seed=0 resize=false; "
    "name=cifar100 or cifar10 alone downloads and checks that one"
)
WORDS = {
    "from": "", "name": "", "to": "configs", "paths.data": "data", "test_share": "0.2", "seed": "0", "resize": "false",
}  # fmt: skip  # a word a line would hide that these are the defaults of one command


def data(words: list[str]) -> int:
    """Make {paths.data}/NAME.npz from images and {to}/data/NAME.yaml, which names its content: data=NAME takes it.

    Of the suite's own, download what is missing.
    """
    from pydantic import ValidationError

    from benchmark.plan.task import Data
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
        raise UserError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error
    path = path_of(made, Path(given["paths.data"]).expanduser())
    named = Path(given["to"]).expanduser() / "data" / f"{made.name}.yaml"
    _refuse_another(named, values)
    write(path, gathered.arrays)
    if not named.exists():
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_text(_yaml(values, gathered.classes, given["from"]))
    for line in gathered.notes:
        say(line)
    print(f"{path}: {made.train_images:,} training and {made.test_images:,} test images, {made.classes} classes")
    print(f"{named}: choose it by data={made.name}, with --config-dir {given['to']} unless that is the suite's own")
    return 0


def _given(words: Sequence[str]) -> dict[str, str]:
    given = dict(WORDS)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in WORDS or not equals:
            raise UserError(f"data: what is {word}? {USAGE}")
        given[name] = value
    ours = given["name"] in OURS
    if ours and given["from"]:
        raise UserError(f"name={given['name']}: that is one of the suite's own; choose another")
    missing = [name for name, value in given.items() if not value and not (ours and name == "from")]
    if missing:
        raise UserError(f"data needs {' and '.join(f'{name}=' for name in missing)}: {USAGE}")
    return given


def _fetch(given: Mapping[str, str]) -> int:
    """Download one of the suite's data sets where it is missing, and prove that it is whole."""
    from benchmark.plan.task import Data
    from benchmark.vision.download import ensure

    root = Path(given["paths.data"]).expanduser()
    ensure(Data(name=given["name"], classes=OURS[given["name"]] or 100), root, say)
    print(f"{given['name']} is whole under {root}" if OURS[given["name"]] else f"{given['name']} needs no file")
    return 0


def _how(given: dict[str, str]) -> Any:
    from benchmark.vision.gather import How

    try:
        how = How(float(given["test_share"]), int(given["seed"]), {"true": True, "false": False}[given["resize"]])
    except (ValueError, KeyError) as error:
        raise UserError(f"data: {error} is none of the values it takes: {USAGE}") from error
    if not 0 < how.test_share < 1 or how.seed < 0:
        raise UserError(
            f"test_share={given['test_share']} seed={given['seed']}: a share between 0 and 1, a seed from 0"
        )
    return how


def _refuse_another(named: Path, values: dict[str, Any]) -> None:
    """Raise UserError where the YAML is there and names other content: records may rest on that."""
    if not named.exists():
        return
    import yaml  # type: ignore[import-untyped]  # it ships no types

    try:
        there = yaml.safe_load(named.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{named} is there and cannot be read ({error}): move it away") from error
    if not isinstance(there, dict) or there.get("sha256") != values["sha256"]:
        raise UserError(f"{named} is there and names other content: choose another name, or move it away")


def _yaml(values: dict[str, Any], classes: Sequence[str], source: str) -> str:
    """The file, every text as JSON writes it: a class named by a stranger stays within its line."""
    day = datetime.date.today().isoformat()
    lines = [f"# Made {day} by: python -m benchmark data from={json.dumps(source)}"]
    lines.append(f"# The classes, from 0 on: {json.dumps(list(classes))}")
    lines += [f"{name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
