"""What a stage spent over all its attempts: useful, repeated, and how each part of it is known.

A stage may need several attempts. Each attempt keeps a journal under results/attempts (joules so far, every few
seconds). A checkpoint holds, beside the state, the share of each attempt that went into it. When the stage is done,
useful = the shares of the resumed checkpoint + what this attempt spent since; repeated = everything else that was
spent. Journals are read before the stage runs: after damage the repeated energy is unknown, and nothing else is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from benchmark.energy.judge.reading import Reading, worst
from benchmark.plan.task import Config
from benchmark.records.attempt import Attempt, read_attempt
from benchmark.records.files import StoreError
from benchmark.records.store import Store

JOURNAL_S = 5.0
"""Seconds between two writes of a journal: what a killed attempt spent after its last one can only be bounded."""


class Share(Config):
    """What one attempt put into a stage, and how that is known: joules with their interval (null where unknown), the
    meter, and what the attempt ran under."""

    joules: float | None
    ci95_joules: float | None
    seconds: float = Field(ge=0)
    source: str
    grade: str
    reason: str
    commit: str
    torch: str
    driver: str
    own_cores: float | None = None
    others_cores: float | None = None

    @classmethod
    def of(cls, reading: Reading, under: Mapping[str, str]) -> Share:
        """The share of an attempt, by what its window has seen so far."""
        return cls(
            joules=known(reading.joules),
            ci95_joules=known(reading.ci95_joules),
            seconds=max(0.0, reading.seconds),
            source=reading.source,
            grade=reading.grade,
            reason=reading.reason,
            own_cores=known(reading.own_cores),
            others_cores=known(reading.others_cores),
            **under,
        )


class Earlier(NamedTuple):
    """What earlier attempts left: their journals by id, and why some cannot be read."""

    attempts: dict[str, Attempt]
    damaged: tuple[str, ...]


def earlier_attempts(store: Store, machine: str, key: str) -> Earlier:
    """The journals of a stage's earlier attempts. Never raises: what cannot be read is named in `damaged`."""
    found: dict[str, Attempt] = {}
    damaged = []
    for path in store.attempt_paths(machine, key):
        try:
            attempt = read_attempt(path)
            found[attempt.id] = attempt
        except StoreError:
            damaged.append(f"the journal {path.name} of an earlier attempt is damaged")
    return Earlier(found, tuple(damaged))


class Account(NamedTuple):
    """What something cost, over all its attempts, and how that is known: the energy columns of a record."""

    joules: float
    ci95_joules: float
    repeated_joules: float
    seconds: float
    source: str
    grade: str
    reason: str
    attempts: int
    reading: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        """As keyword arguments of a record."""
        return self._asdict()

    @classmethod
    def of_windows(cls, account: Mapping[str, Any]) -> Account:
        """The account of a measurement's windows, as benchmark.deploy.measure sums them up."""
        return cls(
            joules=number(account["joules"]),
            ci95_joules=number(account["ci95_joules"]),
            repeated_joules=0.0,
            seconds=account["seconds"],
            source=account["source"],
            grade=account["grade"],
            reason=account["reason"],
            attempts=1,
            reading=dict(account),
        )

    @classmethod
    def of_attempts(cls, reading: Reading, last: Share, resumed: Mapping[str, Share], earlier: Earlier) -> Account:
        """The account of a stage whose last attempt saw `reading` (as `last`) and went on from `resumed`."""
        shares = [*resumed.values(), last]
        repeated, reasons = repeated_joules(earlier, resumed)
        sources = list(dict.fromkeys(share.source for share in shares))
        told = [*(share.reason for share in shares), *_changes(shares), *reasons]
        return cls(
            joules=math.fsum(number(share.joules) for share in shares),
            # an edge or a meter that is off is off in one direction: uncertainties of parts add up
            ci95_joules=math.fsum(number(share.ci95_joules) for share in shares),
            repeated_joules=repeated,
            seconds=math.fsum(share.seconds for share in shares),
            source=sources[0] if len(sources) == 1 else f"mixed({', '.join(sources)})",
            grade=worst([share.grade for share in shares]),
            reason="; ".join(dict.fromkeys(filter(None, told))),
            attempts=len(earlier.attempts) + len(earlier.damaged) + 1,
            reading={**reading.to_json(), **_cores(shares)},
        )


def _cores(shares: Sequence[Share]) -> dict[str, float | None]:
    """Who used the processor over all attempts, by their seconds; None where one does not say it."""
    seconds = math.fsum(share.seconds for share in shares)
    found: dict[str, float | None] = {}
    for name in ("own_cores", "others_cores"):
        values = [number(getattr(share, name)) * share.seconds for share in shares if share.seconds > 0]
        found[name] = known(math.fsum(values) / seconds) if seconds > 0 else None
    return found


def repeated_joules(earlier: Earlier, resumed: Mapping[str, Share] | None = None) -> tuple[float, list[str]]:
    """(joules that earlier attempts spent and that are not in `resumed`, why some of it is not exactly known)."""
    repeated, reasons = 0.0, list(earlier.damaged)
    for attempt in earlier.attempts.values():
        spent = number(attempt.joules)
        if not attempt.closed:
            tail = number(attempt.max_w) * max(JOURNAL_S, 2 * attempt.longest_gap_s)
            reasons.append(f"attempt {attempt.id} was killed: up to {tail:.0f} J after its last journal are booked")
            spent += tail
        kept = (resumed or {}).get(attempt.id)
        repeated += spent - (0.0 if kept is None else number(kept.joules))
    return (math.nan if earlier.damaged else max(0.0, repeated) if repeated == repeated else repeated), reasons


def _changes(shares: Sequence[Share]) -> list[str]:
    """What changed between the attempts, in words: a record names only what its last attempt ran under."""
    found = []
    for name in ("source", "torch", "driver", "commit"):
        values = list(dict.fromkeys(getattr(share, name) for share in shares))
        if len(values) > 1:
            what = "by several meters" if name == "source" else f"under several versions of {name}"
            found.append(f"its attempts ran {what}: {', then '.join(value or 'none' for value in values)}")
    return found


def number(value: float | None) -> float:
    """The number; NaN where it is not known."""
    return math.nan if value is None else value


def known(value: float) -> float | None:
    """The number; None where it is not known."""
    return value if math.isfinite(value) else None
