"""Where words are looked up: configs/ and the folders of --config-dir, and what there is to choose. Needs nothing but
Python."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]

CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Our own words: within the package where it was installed from a wheel, beside it in a checkout."""

_GROUPS = sorted({"pair", *(path.name for path in CONFIGS.iterdir() if any(path.rglob("*.yaml")))} - {"experiment"})

_EXTRA: list[Path] = []
"""The folders that the present command's --config-dir flags name."""


class ConfigError(UserError):
    """The words of a command do not make an experiment; the message names the nearest valid ones."""


def take_config_dirs(words: Sequence[str]) -> list[str]:
    """The words of a command without its `--config-dir DIR` flags (any number, also `--config-dir=DIR`), whose folders
    are from here on searched like configs/: for choices, help, near names, sweeps, studies and by Hydra.

    Raises ConfigError where a folder is none, holds nothing to choose, or would hide a name that exists.
    """
    rest, folders, given = [], [], iter(words)
    for word in given:
        flag, equals, folder = word.partition("=")
        if flag != "--config-dir":
            rest.append(word)
            continue
        folder = folder if equals else next(given, "")
        if not folder:
            raise ConfigError("--config-dir needs a folder: --config-dir DIR")
        folders.append(Path(folder).expanduser().resolve())
    _EXTRA.clear()
    for extra in dict.fromkeys(folders):
        _check_folder(extra)
        _EXTRA.append(extra)
    return rest


def folders() -> tuple[Path, ...]:
    """Where choices are looked up: configs/, then those of --config-dir."""
    return (CONFIGS, *_EXTRA)


def search_path() -> list[str]:
    """The override that makes Hydra search the folders of --config-dir, too; none where there are none."""
    quoted = ["'file://" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in _EXTRA]
    return [f"hydra.searchpath=[{','.join(quoted)}]"] if quoted else []


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: there is no such folder")
    known = [*_GROUPS, "experiment"]
    for child in sorted(folder.iterdir()):
        if child.suffix == ".yaml":
            raise ConfigError(f"--config-dir {folder}: {child.name} must lie in a folder named {', '.join(known)}")
        if child.is_dir() and child.name not in known and any(child.glob("*.yaml")):
            raise ConfigError(f"--config-dir {folder}: unknown group {child.name!r}{near(child.name, known)}")
    files = [path for group in known for path in sorted((folder / group).rglob("*.yaml"))]
    if not files:
        raise ConfigError(f"--config-dir {folder}: holds no YAML file in a folder named {', '.join(known)}")
    for path in files:
        twin = next(
            (each / path.relative_to(folder) for each in folders() if (each / path.relative_to(folder)).is_file()), None
        )
        if twin is not None:
            raise ConfigError(f"--config-dir {folder}: {path} has the name of {twin}; give it another")


def names(group: str) -> list[str]:
    """Every choice of a config group, nested ones as 'family/name'; files that begin with an underscore are not
    choices."""
    found = [
        path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in folders()
        for path in (folder / group).rglob("*.yaml")
        if not path.name.startswith("_")
    ]
    return sorted(found)


def groups() -> list[str]:
    """The config groups an override may choose from."""
    return [group for group in _GROUPS if any((folder / group).is_dir() for folder in folders())]


def near(word: str, valid: Iterable[str]) -> str:
    """'; did you mean a, b?' or, without a near name, '; there are a, b, ...'."""
    valid = [name for name in valid if not name.rpartition(".")[2].startswith("_")]  # those are the suite's own
    whole = difflib.get_close_matches(word, valid, n=3, cutoff=0.6)
    tail = word.rpartition("/")[2]
    likeness = {name: difflib.SequenceMatcher(None, name.rpartition("/")[2], tail).ratio() for name in valid}
    same_tail = sorted((name for name in valid if likeness[name] >= 0.75), key=lambda name: -likeness[name])
    found = [name for name in same_tail if likeness[name] == 1] or list(dict.fromkeys([*same_tail, *whole]))[:4]
    if found:
        return f"; did you mean {', '.join(found)}?"
    return f"; there are {', '.join(valid)}" if valid else ""
