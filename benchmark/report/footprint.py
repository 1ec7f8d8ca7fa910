"""Money and carbon of a row, by prices and a grid that the user names. Energies are read here, and none is changed.

CO2e = kWh x PUE x the grid's intensity (as Strubell et al., 2019, and CodeCarbon). G_CO2e, the paper's equation 2, is
taken as equation 1 with these emissions in the place of the energies.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.plan.asked import Asked
from benchmark.report.greeness import greeness
from benchmark.report.summary import SummaryRow

WH_PER_KWH, S_PER_H, G_PER_KG = 1000.0, 3600.0, 1000.0
MUI = 5e8
"""The inferences of the columns that are called 500m."""

TABLE = "codecarbon/data/private_infra/global_energy_mix.json"
"""CodeCarbon's table of countries, below its installation: kilobytes of JSON, read without importing CodeCarbon."""


@dataclass(frozen=True)
class Footprint:
    """What money and carbon are computed with. Prices in the user's currency; NaN where the user named none.

    `code` is the country's in three letters and `place` its name, as the user or the table has them; `grid` says where
    the intensity comes from and of which year it is.
    """

    price_kwh: float = math.nan
    price_device_hour: float = math.nan
    g_per_kwh: float = math.nan
    pue: float = 1.0
    code: str = ""
    place: str = ""
    grid: str = ""


def footprint_of(asked: Asked) -> Footprint:
    """The prices and the grid that a report is asked for.

    Raises UserError for a country that is not in the table, and where CodeCarbon, which has the table, is missing.
    """
    named = Footprint(_or_nan(asked.price_kwh), _or_nan(asked.price_device_hour), pue=asked.pue)
    named = replace(named, code=asked.country or "", place=asked.country or "")
    if asked.grid_g_per_kwh is not None:
        return replace(named, g_per_kwh=asked.grid_g_per_kwh, grid="named by the user")
    if asked.country is None:
        return named
    version, table = _countries()
    g_per_kwh, place, year = _country(asked.country, table)
    return replace(named, g_per_kwh=g_per_kwh, place=place, grid=f"{place}, {year}, CodeCarbon {version}")


def with_footprint(rows: Sequence[SummaryRow], footprint: Footprint) -> list[SummaryRow]:
    """The rows with their money and carbon; NaN where nothing was named, or the energy or the time is unknown."""
    words = said(footprint)
    found = []
    for row in rows:
        life_wh, life_seconds = row.tec_wh + MUI * row.iec_wh, row.train_seconds + MUI * row.seconds_per_image
        co2e_500m_kg = co2e_kg(life_wh, footprint)
        found.append(
            replace(
                row,
                money_train=money(row.tec_wh, row.train_seconds, footprint),
                money_500m=money(life_wh, life_seconds, footprint),
                co2e_train_kg=co2e_kg(row.tec_wh, footprint),
                co2e_500m_kg=co2e_500m_kg,
                g_co2e_500m=g_co2e(row.acc_pct, co2e_500m_kg, row.tau),
                footprint=words,
            )
        )
    return found


def money(energy_wh: float, seconds: float, footprint: Footprint) -> float:
    """What an energy and the time of one device cost: kWh x PUE x price, and hours x price. A price that was not named
    has no part in it; NaN where neither was."""
    parts = [
        energy_wh / WH_PER_KWH * footprint.pue * footprint.price_kwh,
        seconds / S_PER_H * footprint.price_device_hour,
    ]
    prices = (footprint.price_kwh, footprint.price_device_hour)
    named = [part for part, price in zip(parts, prices, strict=True) if not math.isnan(price)]
    return math.fsum(named) if named else math.nan


def co2e_kg(energy_wh: float, footprint: Footprint) -> float:
    """The emissions of an energy: kWh x PUE x g CO2e per kWh. NaN where no grid was named."""
    return energy_wh / WH_PER_KWH * footprint.pue * footprint.g_per_kwh / G_PER_KG


def g_co2e(acc_pct: float, co2e_of_life_kg: float, tau: float) -> float:
    """G_CO2e = acc^tau / CO2e of training and of all inferences, in percent^tau per kg (Li et al., 2021, eq. 2).

    As in equation 1, accuracy is in percent. NaN where the emissions are unknown, or nothing is emitted.
    """
    return math.nan if co2e_of_life_kg == 0 else greeness(acc_pct, co2e_of_life_kg, 0.0, 0.0, tau)


def said(footprint: Footprint) -> str:
    """What money and carbon were computed with, in words for a table; empty where neither was named."""
    parts = [grid_said(footprint)]
    if not math.isnan(footprint.price_kwh):
        parts.append(f"{footprint.price_kwh:g} per kWh")
    if not math.isnan(footprint.price_device_hour):
        parts.append(f"{footprint.price_device_hour:g} per device hour")
    named = list(filter(None, parts))
    return "; ".join([*named, f"PUE {footprint.pue:g}"]) if named else ""


def grid_said(footprint: Footprint) -> str:
    """The grid's intensity, with its source and year; empty where none was named."""
    return "" if math.isnan(footprint.g_per_kwh) else f"{footprint.g_per_kwh:g} g CO2e per kWh ({footprint.grid})"


def notes(footprint: Footprint) -> list[str]:
    """Lines below a table: what money and CO2e rest on, and that no energy holds them."""
    told = said(footprint)
    if told:
        return [f"money and CO2e (summary.csv) by {told}; the production of the hardware is in neither"]
    if footprint.pue != 1:
        return [
            f"PUE {footprint.pue:g} changes no energy: name country=, grid_g_per_kwh= or price_kwh= for CO2e or money"
        ]
    return []


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _countries() -> tuple[str, Mapping[str, Any]]:
    """CodeCarbon's version and its table of countries. Raises UserError."""
    try:
        installed = metadata.distribution("codecarbon")
        path = Path(str(installed.locate_file(TABLE)))
    except metadata.PackageNotFoundError as error:
        raise UserError(
            "country= is looked up in CodeCarbon's table, and CodeCarbon is not installed: pip install "
            "'full-cycle-energy-benchmark[report]', or name the grid's intensity with grid_g_per_kwh="
        ) from error
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read CodeCarbon's table {path}: {error}; name grid_g_per_kwh= instead") from error
    return installed.version, table if isinstance(table, dict) else {}


def _country(code: str, table: Mapping[str, Any]) -> tuple[float, str, str]:
    """Intensity in g CO2e per kWh, name and year of a country. Raises UserError where the table does not know it."""
    entry = table.get(code)
    if not isinstance(entry, Mapping):
        names = {str(each.get("country_name", "")): name for name, each in table.items() if isinstance(each, Mapping)}
        raise UserError(f"country={code} is not in CodeCarbon's table{_near(code, names)}; or name grid_g_per_kwh=")
    intensity = entry.get("carbon_intensity")
    if isinstance(intensity, bool) or not isinstance(intensity, int | float) or not 0 < intensity < math.inf:
        # the table says 0 where nobody knows: no grid on earth emits nothing
        raise UserError(f"country={code}: CodeCarbon's table holds no intensity for it; name grid_g_per_kwh=")
    return float(intensity), str(entry.get("country_name") or code), str(entry.get("year", "of unknown year"))


def _near(code: str, names: Mapping[str, str]) -> str:
    """Near codes, each with its country, as the end of an error: those of names that begin alike (GER), then codes of
    a slip of the pen (DEO)."""
    by_code = {each: name for name, each in names.items()}
    alike = [each for name, each in names.items() if name.upper().startswith(code)]
    slips = difflib.get_close_matches(code, by_code, n=3, cutoff=0.6)
    likely = list(dict.fromkeys([*alike, *slips]))[:4]
    if not likely:
        return " of three-letter codes (DEU, FRA, USA)"
    return f"; did you mean {', '.join(f'{each} ({by_code[each]})' for each in likely)}?"
