"""What the exports share: how a life is told in the two words that others have for it, and what its file is called."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from benchmark.energy.judge.reading import is_estimate
from benchmark.errors import one_line
from benchmark.report.rows import AFTER
from benchmark.report.summary import SummaryRow

LONGEST_NAME = 120


class Training(NamedTuple):
    """TEC in others' words, in W.h: training and fine-tuning, and what that is called."""

    training_wh: float
    finetuning_wh: float
    kind: str


def training_of(row: SummaryRow) -> Training:
    """Fine-tuning is what comes after a base training of the same network: compression and re-training.

    The training of a teacher's student, or of an architecture that was searched for, is training.
    """
    after_wh = row.compress_wh + row.retrain_wh
    if row.teacher and AFTER in row.method:  # the student is a base for what comes after it; its phases hold both
        return Training(row.tec_wh, 0.0, "pre-training and fine-tuning together (two methods in one life)")
    if row.teacher:
        return Training(row.tec_wh, 0.0, "pre-training (its teacher's included)")
    if not row.base_wh:
        return Training(row.tec_wh, 0.0, "pre-training (the search included)" if row.compress_wh else "pre-training")
    if not after_wh:
        return Training(row.tec_wh, 0.0, "pre-training")
    return Training(row.base_wh, after_wh, "pre-training and fine-tuning")


def how_known(row: SummaryRow) -> str:
    """Where a row's energy comes from and how far to trust it: an estimate says so first."""
    sources = row.energy_source.split("+")
    guessed = [source for source in sources if is_estimate(source)]
    if row.grade == "E" or len(guessed) == len(sources):
        word = "estimated, not measured"
    else:
        word = "estimated in part, measured in part" if guessed else "measured"
    return one_line(f"{word} ({row.energy_source or 'no meter'}, grade {row.grade})")


def file_name(experiment: str, suffix: str) -> str:
    """A name for an experiment's file: of plain signs, not hidden, in no other folder, and one for each experiment."""
    digest = hashlib.sha256(experiment.encode("utf-8", "replace")).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9_-]+", ".", experiment).strip(".-")
    return f"{plain[:LONGEST_NAME] or 'row'}-{digest}{suffix}"
