"""The paper's own rows (results/paper/paper_tables.csv), typed, with G recomputed from their inputs."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError, one_line
from benchmark.plan.folders import CONFIGS
from benchmark.report.greeness import TAU, greeness

PAPER = CONFIGS.parent / "results/paper"
"""The paper's tables and what ours are called beside them. They lie in a checkout, and in no wheel."""

SOURCE = "paper"
"""What a row says of itself whose numbers are the paper's and not ours."""


@dataclass(frozen=True)
class PaperRow:
    """One method of the paper: what it printed for accuracy, TEC and IEC. The paper gives no intervals."""

    family: str
    model: str
    search: str
    method: str
    acc_pct: float
    tec_wh: float
    iec_wh: float
    source: str = SOURCE

    @property
    def name(self) -> str:
        """Model, method and, of a search, the data it searched on."""
        return f"{self.model} {self.method}" + (f" ({self.search})" if self.search else "")

    def g(self, mui: float, tau: float = TAU) -> float:
        """G of this row in percent^tau per W.h, computed and not the printed value."""
        return greeness(self.acc_pct, self.tec_wh, self.iec_wh, mui, tau)


def paper_rows(path: Path) -> list[PaperRow]:
    """Every method of Tables 3 and 5 once. Table 5 wins, for it prints IEC with more digits.

    Raises UserError where the file is missing or holds no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            printed = [row for row in csv.DictReader(file) if row["table"] in ("3", "5")]
        found: dict[tuple[str, str, str], PaperRow] = {}
        for row in sorted(printed, key=lambda row: row["table"]):
            key = row["model_or_pair"], row["search_dataset"], row["method"]
            found[key] = _typed(row)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"cannot read the paper's tables in {path}: {one_line(repr(error))}; restore the file from the repository"
        ) from error
    if not found:
        raise UserError(f"{path} holds no row of Table 3 or 5; restore the file from the repository")
    return list(found.values())


def _typed(row: dict[str, str]) -> PaperRow:
    acc_pct, tec_wh, iec_wh = (float(row[name]) for name in ("acc_pct", "tec_wh", "iec_wh"))
    if not (0 < acc_pct <= 100 and 0 < tec_wh < math.inf and 0 < iec_wh < math.inf):
        raise ValueError(f"numbers that cannot be true for {row['method']}")
    return PaperRow(row["group"], row["model_or_pair"], row["search_dataset"], row["method"], acc_pct, tec_wh, iec_wh)
