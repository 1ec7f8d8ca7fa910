"""Which method to take for a number of inferences, how sure that is, and what would make it surer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmark.report.crossovers import Cycle
from benchmark.report.greeness import Uncertain, greeness, greeness_ci95
from benchmark.report.laid import MJ_PER_WH
from benchmark.report.paper import PaperRow
from benchmark.report.summary import RIVALS, SummaryRow
from benchmark.report.turns import cycle_of, reigns, sentence


class Candidate(NamedTuple):
    """A row to choose from. `known` says what stands behind its numbers; `doubts` what would make them surer."""

    name: str
    group: str
    cycle: Cycle
    known: str
    doubts: str


class Question(NamedTuple):
    """What is asked: inferences in a life (MUI), the least accuracy in percent, the exponent of accuracy."""

    mui: float
    min_acc_pct: float
    tau: float


def of_paper(rows: Sequence[PaperRow]) -> list[Candidate]:
    """The paper's rows. It prints no intervals, so none of its margins is certain."""
    unknown = math.nan
    return [
        Candidate(
            f"{row.method} on {row.model}" + (f", searched on {row.search}" if row.search else ""),
            "the paper's own table (P100 for training, TITAN V for inference)",
            Cycle(Uncertain(row.acc_pct, unknown), Uncertain(row.tec_wh, unknown), Uncertain(row.iec_wh, unknown)),
            "the paper",
            "",
        )
        for row in rows
    ]


def of_summary(summary: Sequence[SummaryRow]) -> list[Candidate]:
    """The complete rows of a results folder. With one seed the spread between seeds is in no interval."""
    found = []
    for row in summary:
        cycle = cycle_of(row)
        if row.n_seeds == 0 or any(math.isnan(each.value) for each in cycle):
            continue
        model = row.model if not row.teacher else f"{row.teacher} -> {row.model}"
        doubts = ["more seeds (n = 1)" if row.n_seeds == 1 else ""]
        doubts.append("a meter: its energy is an estimate" if row.grade == "E" else "")
        doubts.append(f"a better meter: grade {row.grade}" if row.grade in ("C", "D", "X") else "")
        found.append(
            Candidate(
                f"{row.method} on {model}" + (f" ({row.settings})" if row.settings else ""),
                f"{row.scale} scale, " + ", ".join(_told_of(row, name) for name in RIVALS if _has(row, name)),
                cycle,
                f"{'~ estimated, ' if row.grade == 'E' else ''}grade {row.grade}, n = {row.n_seeds}",
                ", ".join(
                    filter(
                        None,
                        [
                            *doubts,
                            "" if row.scale == "full" else f"scale=full: scale {row.scale} says nothing about a method",
                        ],
                    )
                ),
            )
        )
    return found


NUMBERS = {
    "classes": "classes",
    "train_images": "training images",
    "test_images": "test images",
    "max_epochs": "epochs at most",
}


def _has(row: SummaryRow, name: str) -> bool:
    same = name == "infer_machine" and row.infer_machine == row.train_machine
    return not same and str(getattr(row, name)) not in ("", "nan")


def _told_of(row: SummaryRow, name: str) -> str:
    value = getattr(row, name)
    return f"{value:g} {NUMBERS[name]}" if name in NUMBERS else str(value)


def advice(candidates: Sequence[Candidate], question: Question) -> Iterator[str]:
    """The answer, lines for people: a part for each group of rows that may be compared."""
    asked = f"{question.mui:,.0f} inferences, accuracy at least {question.min_acc_pct:g} %, tau {question.tau:g}"
    for group in dict.fromkeys(each.group for each in candidates):
        own = [each for each in candidates if each.group == group]
        fit = [each for each in own if each.cycle.acc_pct.value >= question.min_acc_pct]
        yield f"For {asked}, by {group}:"
        if not fit:
            best = max(own, key=lambda each: each.cycle.acc_pct.value)
            yield f"  nothing is that accurate: the most accurate is {best.name} ({best.cycle.acc_pct.value:.2f} %)"
            continue
        yield from (f"  {line}" for line in _answer(fit, question))


def _answer(fit: Sequence[Candidate], question: Question) -> Iterator[str]:
    ordered = sorted(fit, key=lambda each: -_g(each, question))
    first = ordered[0]
    yield f"greenest:  {_told(first, question)}"
    if len(ordered) > 1:
        yield f"runner-up: {_told(ordered[1], question)}"
        yield f"margin:    {_margin(first, ordered[1], question)}"
    for factor, words in ((0.1, "ten times fewer"), (10.0, "ten times more")):
        there = question._replace(mui=question.mui * factor)
        best = max(fit, key=lambda each: _g(each, there))
        yield f"{words} inferences: {'the same' if best is first else best.name}"
    yield f"over all numbers of inferences: {sentence(reigns({each.name: each.cycle for each in fit}, question.tau))}"
    surer = [f"{each.name}: {each.doubts}" for each in ordered[:2] if each.doubts]
    if surer:
        yield f"what would make it surer: {'; '.join(surer)}"


def _told(each: Candidate, question: Question) -> str:
    accuracy, tec, iec = each.cycle
    numbers = f"accuracy {accuracy.value:.2f} %, TEC {tec.value:.4g} W.h, IEC {iec.value * MJ_PER_WH:.4g} mJ"
    spent_wh = tec.value + question.mui * iec.value
    return f"{each.name}: G {_g(each, question):.4g}, {spent_wh:.4g} W.h in all ({numbers}; {each.known})"


def _margin(first: Candidate, second: Candidate, question: Question) -> str:
    one, other = _g(first, question), _g(second, question)
    percent = 100 * (one / other - 1) if other else math.inf
    told = "all of G" if math.isinf(percent) else f"{percent:.0f} % of G" if percent >= 100 else f"{percent:.2g} % of G"
    spread = math.hypot(*(greeness_ci95(*each.cycle, question.mui, question.tau) for each in (first, second)))
    if math.isnan(spread):
        return f"{told}; how certain that is, cannot be told: there are no intervals"
    if one - other <= spread:
        return f"{told}, less than the intervals leave open: take it as a tie"
    seeds = "; the spread between seeds is not in them (n = 1)" if "n = 1" in first.doubts + second.doubts else ""
    return f"{told}, more than the 95 % intervals leave open{seeds}"


def _g(each: Candidate, question: Question) -> float:
    accuracy, tec, iec = each.cycle
    return greeness(accuracy.value, tec.value, iec.value, question.mui, question.tau)
