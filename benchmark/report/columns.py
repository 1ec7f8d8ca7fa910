"""Typed rows: what a column is called, its unit and its meaning stand beside its field, and nowhere else."""

from __future__ import annotations

from dataclasses import field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def column(unit: str, meaning: str) -> Any:
    """A field of a row, with its unit ('' for words and counts) and what it means."""
    return field(metadata={"unit": unit, "meaning": meaning})


def names(kind: type[DataclassInstance]) -> list[str]:
    """The columns of a kind of row, in order."""
    return [each.name for each in fields(kind)]
