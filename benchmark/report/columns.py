"""Typed rows: what a column is called, its unit and its meaning stand beside its field, and nowhere else.

`python -m benchmark.report.columns` prints docs/columns.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def column(unit: str, meaning: str) -> Any:
    """A field of a row, with its unit ('' for words and counts) and what it means."""
    return field(metadata={"unit": unit, "meaning": meaning})


def names(kind: type[DataclassInstance]) -> list[str]:
    """The columns of a kind of row, in order."""
    return [each.name for each in fields(kind)]


def _line(each: Field[Any]) -> str:
    return f"| `{each.name}` | {each.metadata['unit']} | {each.metadata['meaning']} |"


def document(kinds: Sequence[tuple[str, type[DataclassInstance]]]) -> str:
    """docs/columns.md: a table for each kind of row, by the file it is written to."""
    parts = [
        "# Columns\n\nMade by `python -m benchmark.report.columns > docs/columns.md` from the typed rows; do not edit."
    ]
    for file, kind in kinds:
        lines = "\n".join(_line(each) for each in fields(kind))
        parts.append(
            f"## {file}\n\n{(kind.__doc__ or '').strip()}\n\n| column | unit | meaning |\n|---|---|---|\n{lines}"
        )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print docs/columns.md."""
    from benchmark.report.rows import StageRow
    from benchmark.report.summary import SummaryRow

    sys.stdout.write(document([("stages.csv", StageRow), ("summary.csv", SummaryRow)]))


if __name__ == "__main__":
    main()
