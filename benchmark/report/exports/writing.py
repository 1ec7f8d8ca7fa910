"""All exports of a results folder, written into one folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.records.files import replace
from benchmark.report.exports.codecarbon import emissions_csv
from benchmark.report.exports.model_card import NEEDS_GRID, model_card
from benchmark.report.exports.spdx import spdx_document
from benchmark.report.exports.words import file_name
from benchmark.report.footprint import Footprint
from benchmark.report.rows import StageRow
from benchmark.report.summary import SummaryRow


def write_exports(
    folder: Path, stages: Sequence[StageRow], summary: Sequence[SummaryRow], footprint: Footprint
) -> list[Path]:
    """Write codecarbon/emissions.csv, spdx/NAME.spdx.json and model_cards/NAME.md, and return what was written.

    Rows whose TEC is unknown have neither of the two, and without a named grid no row has a card: `left_out` says so.
    Raises StoreError where the folder cannot be written.
    """
    files = {"codecarbon/emissions.csv": emissions_csv(stages, footprint)}
    for row in _known(summary):
        own = [stage for stage in stages if stage.experiment == row.experiment]
        document = spdx_document(row, max((stage.created for stage in own), default=""))
        files[f"spdx/{file_name(row.experiment, '.spdx.json')}"] = json.dumps(document, indent=1, allow_nan=False)
        if not math.isnan(footprint.g_per_kwh):
            card = model_card(row, _hardware(own), footprint)
            files[f"model_cards/{file_name(row.experiment, '.md')}"] = card
    for name, content in files.items():
        replace(folder / name, content.encode("utf-8", "replace"), durable=False)
    return [folder / name for name in files]


def left_out(summary: Sequence[SummaryRow], footprint: Footprint) -> list[str]:
    """A line for everything that the exports do not hold, with its reason."""
    known = list(_known(summary))
    lines = [
        f"no SPDX package of {row.experiment}: {row.missing or 'its energy is unknown'}"
        for row in summary
        if row not in known
    ]
    return lines + ([f"no model cards: {NEEDS_GRID}"] if known and math.isnan(footprint.g_per_kwh) else [])


def _known(summary: Sequence[SummaryRow]) -> Iterator[SummaryRow]:
    yield from (row for row in summary if math.isfinite(row.tec_wh))


def _hardware(stages: Sequence[StageRow]) -> str:
    """What a life's training ran on, each device once."""
    return ", ".join(dict.fromkeys(row.device_name for row in stages if row.kind == "TEC" and row.device_name))
