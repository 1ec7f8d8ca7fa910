"""What a report is asked for: it decides how rows are read, and is part of no life."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator

from benchmark.plan.task import Config, DeployPrecision

MAX_DROP_PCT: dict[DeployPrecision, float] = {"tf32": 0.5, "bf16": 0.5, "fp16": 0.5, "int8": 3.0}

MOST_MUI = 1e18
"""More inferences than any network makes in its life."""


TIMES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
"""What people write behind a number of inferences, as our own tables do: G(500M)."""


def inferences(value: float | str) -> float | str:
    """A number of inferences as people write it (2e8, 10M, 1.5B) as a number; another text as it is."""
    text = value.strip().lower() if isinstance(value, str) else ""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[0-9]+)?)([kmbg]?)", text)
    return float(match[1]) * TIMES.get(match[2], 1.0) if match else value


def as_list(word: str) -> str:
    """A word of the command with several MUI in Hydra's brackets: `mui=1e7,5e8` as `mui=[1e7,5e8]`; others as they
    are."""
    name, _, value = word.partition("=")
    return f"{name}=[{value}]" if name == "mui" and "," in value and not value.startswith(("[", "'", '"')) else word


class Asked(Config):
    """`tau` is the exponent of accuracy in G. `max_drop_pct` says, by precision, how many points of accuracy an engine
    may lose against its network before its rows carry a warning. `mui`: further numbers of inferences to give G at.

    The rest is for money and carbon, which have columns of their own and no share in any energy: prices in the user's
    currency per kWh and per hour of a device, the country (ISO 3166-1, three letters) or the grid's g CO2e per kWh,
    which wins, and PUE, the building's energy per energy of its computers.
    """

    tau: float = Field(gt=0, le=100)
    max_drop_pct: dict[DeployPrecision, Annotated[float, Field(ge=0, le=100)]] = MAX_DROP_PCT
    mui: tuple[Annotated[float, Field(ge=0, le=MOST_MUI)], ...] = Field(default=(), max_length=20)
    price_kwh: float | None = Field(default=None, ge=0, le=1e6)
    price_device_hour: float | None = Field(default=None, ge=0, le=1e6)
    country: str | None = None
    grid_g_per_kwh: float | None = Field(default=None, ge=0, le=10_000)
    pue: float = Field(default=1.0, ge=1, le=10)

    @field_validator("mui", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """None, a number, a list of numbers, or numbers with commas between them; each once."""
        if value is None:
            return ()
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[] ").split(",")]
        several = list(value) if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, bool) or not isinstance(each, int | float | str) for each in several):
            raise ValueError("give numbers of inferences: mui=1e7,5e8")
        numbers = dict.fromkeys(inferences(each) for each in several)
        strange = [each for each in numbers if isinstance(each, str)]
        if strange:
            raise ValueError(f"{strange[0]!r} is no number of inferences: mui=1e7,5e8")
        return tuple(numbers)

    @field_validator("country", mode="before")
    @classmethod
    def _in_capitals(cls, value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch("[A-Za-z]{3}", value) is None:
            raise ValueError("a country is said by three letters, as DEU or USA (ISO 3166-1 alpha-3)")
        return value.upper() if isinstance(value, str) else value
