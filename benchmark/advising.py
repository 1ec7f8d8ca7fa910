"""`advise`: the greenest method for a number of inferences, from the records here or from the paper's own table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmark.common import elsewhere, folders_of
from benchmark.errors import UserError

NUMBERS = {"mui": 0.0, "min_acc": 0.0, "tau": 2.0}
MOST = {"mui": 1e18, "min_acc": 100.0, "tau": 100.0}


def advise(words: list[str]) -> int:
    """Print the answer: mui=2e8 min_acc=70 [tau=2] [source=paper]."""
    from benchmark.report.advice import Question, advice, of_paper, of_summary
    from benchmark.report.summary import disturbance

    given, rest = _asked(words)
    question = Question(given["mui"], given["min_acc"], given["tau"])
    if given["source"] == "paper":
        if rest:
            raise UserError(f"source=paper answers from the paper's table: leave {' '.join(rest)} out")
        from benchmark.report.paper import PAPER, paper_rows

        candidates, warnings = of_paper(paper_rows(PAPER / "paper_tables.csv")), []
    else:
        summary = _summary(rest, given["tau"])
        candidates, warnings = of_summary(summary), [f"  warning: {line}" for line in disturbance(summary)]
    if not candidates:
        trials = elsewhere(rest)
        raise UserError(
            f"no row here is complete: run a study first{trials and f', or {trials}'}, or ask the paper's table: "
            "source=paper"
        )
    for line in (*advice(candidates, question), *warnings):
        print(line)
    return 0


def _summary(words: Sequence[str], tau: float) -> list[Any]:
    from benchmark.records.book import Book
    from benchmark.report.rows import stage_rows
    from benchmark.report.summary import summarise

    try:
        store, asked = folders_of(words)
    except UserError as error:
        raise UserError(f"{error}; source=paper answers from the paper's own table at once") from error
    book = Book.read(store)
    return summarise(book, stage_rows(book, asked.max_drop_pct), tau)


def _asked(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, Any] = {**NUMBERS, "mui": math.nan, "source": "records"}
    rest = []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name in NUMBERS and equals:
            given[name] = _number(name, value)
        elif name == "source" and value in ("paper", "records"):
            given["source"] = value
        elif name == "source":
            raise UserError(f"source={value}: there are records and paper")
        elif word.startswith("--config-dir") or word.partition("=")[0].startswith(("paths.", "scale", "max_drop_pct")):
            rest.append(word)
        else:
            from benchmark.plan.folders import near

            known = [*NUMBERS, "source", "paths.results", "scale"]
            raise UserError(f"unknown name {word.partition('=')[0]!r}{near(name, known)}")
    if math.isnan(given["mui"]):
        raise UserError("say how often the network will be used in its life: mui=2e8")
    return given, rest


def _number(name: str, value: str) -> float:
    from benchmark.plan.asked import inferences

    try:
        number = float(inferences(value) if name == "mui" else value)
    except ValueError:
        raise UserError(f"{name}={value} is no number") from None
    if not 0 <= number <= MOST[name] or (name != "min_acc" and number == 0):
        raise UserError(f"{name}={value}: above 0 and at most {MOST[name]:g}")
    return number
