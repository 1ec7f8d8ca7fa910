"""docs/columns.md, made from the typed rows: `python -m benchmark.report.document > docs/columns.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from benchmark.report.by_mui import MuiRow
from benchmark.report.rows import StageRow
from benchmark.report.summary import RIVALS, SummaryRow

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_AGREE = ", ".join(f"`{name}`" for name in RIVALS)
RIVALS_ARE = (
    f"**Rivals** are rows that may be ranked against each other: they agree in {_AGREE}.\n"
    "A row's **baseline** is the plain training with its model and recipe among its rivals. Energies are W.h, MUI is\n"
    "a number of inferences, G is Greeness."
)
TOTALS = """## totals.csv

A line for each phase, each family of methods, and all, called so by `name`. `spent_wh` counts each record once, with
what was repeated; `attributed_wh` counts it in every life that rests on it, as TEC does; `records` is their number, and
`unknown` the number of those without an energy. All energies are W.h."""


def _line(each: Field[Any]) -> str:
    return f"| `{each.name}` | {each.metadata['unit']} | {each.metadata['meaning']} |"


def document(kinds: Sequence[tuple[str, type[DataclassInstance]]]) -> str:
    """docs/columns.md: a table for each kind of row, by the file it is written to."""
    parts = [
        "# Columns\n\nMade by `python -m benchmark.report.document > docs/columns.md` from the typed rows; do not edit."
    ]
    parts.append(RIVALS_ARE)
    for file, kind in kinds:
        lines = "\n".join(_line(each) for each in fields(kind))
        parts.append(
            f"## {file}\n\n{(kind.__doc__ or '').strip()}\n\n| column | unit | meaning |\n|---|---|---|\n{lines}"
        )
    parts.append(TOTALS)
    return "\n\n".join(parts) + "\n"


KINDS: Sequence[tuple[str, type[DataclassInstance]]] = (
    ("stages.csv", StageRow),
    ("summary.csv", SummaryRow),
    ("by_mui.csv", MuiRow),
)
"""The files, and the rows that are written to them."""


def main() -> None:
    """Print docs/columns.md."""
    sys.stdout.write(document(KINDS))


if __name__ == "__main__":
    main()
