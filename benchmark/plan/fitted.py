"""What a data set of the user's own changes in the words of a command, in place."""

from __future__ import annotations

import copy
from typing import Any


def fitted(words: dict[str, Any]) -> list[str]:
    """Fit the recipes and the scale of composed words to their data set; returns a line for each change."""
    return [*_normalise(words), *_all_there_are(words)]


def _normalise(words: dict[str, Any]) -> list[str]:
    """Images are normalised by the constants of their data set, where it has its own, whatever recipe trains on them:
    in place; returns a line that says so."""
    constants = {name: words["data"].get(name) for name in ("mean", "std")}
    if None in constants.values():
        return []
    for name in ("recipe", "teacher_recipe"):
        if isinstance(words.get(name), dict):
            words[name] |= copy.deepcopy(constants)
    return [f"data={words['data'].get('name')} brings its own mean and std, which replace those of every recipe"]


def _all_there_are(words: dict[str, Any]) -> list[str]:
    """A scale takes all images of a data set of one's own that has fewer: in place; returns a line for each split."""
    scale, data, notes = words["scale"], words["data"], []
    for name in ("train_images", "test_images"):
        asked, there = scale.get(name), data.get(name)
        if isinstance(asked, int) and isinstance(there, int) and asked > there:
            scale[name] = there
            notes.append(
                f"scale={scale.get('name')} takes all {there:,} {name.replace('_', ' ')} of data={data.get('name')}"
            )
    return notes
