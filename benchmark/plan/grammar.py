"""What is wrong with the words of a command, and what was probably meant: before Hydra, whose grammar they follow.

Needs nothing but Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from benchmark.plan.folders import ConfigError, folders, groups, names, near

FREE = ("paths.data", "paths.artifacts", "paths.results", "hardware.device", "hardware.train", "hardware.infer")
"""Settings whose values are plain text: they may hold every sign, also those that Hydra's grammar gives a meaning."""
LABELS = ("method", "model", "teacher", "data", "scale", "recipe", "teacher_recipe")
"""Words whose choice has a name of its own, by which rows call it."""


def quoted(word: str) -> str:
    """A word whose value is plain text, quoted for Hydra; every other word as it is."""
    name, equals, value = word.partition("=")
    plain = name not in FREE or not value or value in ("null",) or value[0] in "'\"" or "${" in value
    if not equals or plain or re.fullmatch(r"[\w/.+-]+", value, re.ASCII):
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
    return f"{name}='{escaped}'"


def check_form(words: Sequence[str], valid: Iterable[str]) -> None:
    """Refuse what is no name=value at all, a deletion, and a name that would no longer be that of its file.

    Raises ConfigError that says what was probably meant.
    """
    for place, word in enumerate(words):
        name, equals, value = word.lstrip("+").partition("=")
        if word.startswith("~"):
            raise ConfigError(f"{word}: no setting can be taken away; give it another value (name=value), or null")
        if not equals:
            following = words[place + 1] if place + 1 < len(words) else ""
            raise ConfigError(_meant(word, following, list(valid)))
        group, _, field = name.partition(".")
        if field == "name" and group in LABELS and not _is_another_network(group, value, words):
            raise ConfigError(
                f"{word}: rows are called by the name of the file that was chosen, so it cannot be changed alone; "
                f"choose another with {group}=, or write one of your own (--config-dir)"
            )


def _is_another_network(group: str, name: str, words: Sequence[str]) -> bool:
    """Whether a name is that of a network of one's own, whose builder is named beside it; no choice's name."""
    beside = any(word.lstrip("+").startswith(f"{group}.builder=") for word in words)
    return group in ("model", "teacher") and beside and name not in names("model")


def _meant(word: str, following: str, valid: list[str]) -> str:
    """What was probably meant by a word without `=`."""
    bare = word.lstrip("-")
    if word.startswith("-"):
        top = bare.split(".")[0]
        value = following if following and "=" not in following and following[:1] != "-" else "..."
        if top in valid:
            return f"{word}: settings are written without dashes: {bare}={value}"
        return f"unknown flag {word} (see python -m benchmark --help)"
    homes = [group for group in groups() if bare in names(group)]
    if homes:
        return f"{word!r} is no setting; did you mean {' or '.join(f'{group}={bare}' for group in homes)}?"
    if bare in valid:
        return f"{word!r} has no value: write {bare}=value (see python -m benchmark run --help)"
    choices = [f"{group}={name}" for group in groups() for name in names(group)]
    likely = near(bare, choices)
    meant = likely if likely.startswith("; did you mean") else ""
    return f"{word!r} is no setting: write name=value{meant} (see python -m benchmark run --help)"


def homes_of(name: str) -> list[str]:
    """The dotted names of the settings that are called so within a group: where `sparsity=0.5` may belong."""
    found = {}
    wanted = re.compile(rf"^\s*{re.escape(name)}:", re.MULTILINE)
    for folder in folders():
        for group in groups():
            if any(wanted.search(path.read_text(errors="replace")) for path in (folder / group).rglob("*.yaml")):
                found[f"{group}.{name}"] = True
    return list(found)


def unreadable(words: Sequence[str], reason: str) -> str:
    """A line about words that Hydra's grammar cannot read: which of them, and how to quote it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for word in words:
        try:
            parser.parse_overrides([word])
        except HydraException:
            name, _, value = word.partition("=")
            example = value.replace("'", "").replace('"', "") or "text"
            return (
                f"{word}: this value cannot be read, because it holds a sign that has a meaning of its own "
                f"(= # , ~ {{ }} [ ] quotes, letters beyond ASCII): quote it twice, for the shell and for Hydra: "
                f"{name}='\"{example}\"'"
            )
    return reason
