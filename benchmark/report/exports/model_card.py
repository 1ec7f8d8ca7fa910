"""A row as a Hugging Face model card: its emissions in the front matter, its energy in the text."""

from __future__ import annotations

import math

import yaml  # type: ignore[import-untyped]  # it ships no types

from benchmark.errors import UserError, one_line
from benchmark.report.exports.words import how_known, training_of
from benchmark.report.footprint import G_PER_KG, Footprint, co2e_kg, grid_said
from benchmark.report.markup import markdown
from benchmark.report.summary import SummaryRow

NEEDS_GRID = "a model card's emissions need a grid that you name: country=DEU, or grid_g_per_kwh=; energies need none"


def model_card(row: SummaryRow, hardware: str, footprint: Footprint) -> str:
    """README.md of a model: `co2_eq_emissions` of its training (TEC), in g CO2e, as the Hub reads it, and W.h as text.

    `hardware` is what it was trained on. Raises UserError where no grid was named, or the energy is unknown.
    """
    if math.isnan(footprint.g_per_kwh):
        raise UserError(NEEDS_GRID)
    if not math.isfinite(row.tec_wh):
        raise UserError(f"{row.experiment}: its energy is unknown, and so are its emissions")
    grid = f"{grid_said(footprint)}, PUE {footprint.pue:g}"
    block = {
        "emissions": co2e_kg(row.tec_wh, footprint) * G_PER_KG,
        "source": one_line(f"full-cycle energy benchmark: energy {how_known(row)}; {grid}"),
        "training_type": training_of(row).kind,
        "geographical_location": one_line(footprint.place),
        "hardware_used": one_line(hardware),
    }
    told = {name: value for name, value in block.items() if value != ""}  # what nobody named is left out
    front = yaml.safe_dump({"co2_eq_emissions": told}, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{_body(row)}"


def _body(row: SummaryRow) -> str:
    """The energies of the whole life, in W.h, and how they are known."""
    training = training_of(row)
    rows = [
        {"energy": f"TEC: {training.kind}", "W.h": f"{row.tec_wh:.6g}"},
        {"energy": "one inference (one image)", "W.h": f"{row.iec_wh:.6g}" if math.isfinite(row.iec_wh) else "unknown"},
    ]
    notes = [
        f"{row.method} {row.model}, {row.data}, accuracy {row.acc_pct:.2f} %, {row.n_seeds} seed(s)",
        f"energy {how_known(row)}, on {row.train_machine}; inference with {row.engine} on {row.infer_machine}",
        "of the device alone, idle power included; without the rest of the host, cooling and the making of hardware",
    ]
    if row.scale != "full":
        notes.append(f"scale {row.scale}: a run that shows that the parts fit together, and nothing of the method")
    return markdown(rows, notes)
