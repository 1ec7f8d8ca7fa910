"""Frees the disk of what no unfinished life needs."""

from __future__ import annotations

from pathlib import Path

from benchmark.records.book import Book
from benchmark.records.store import Store


def removable(store: Store) -> list[Path]:
    """Files under artifacts/ that no life which was asked for and is not finished can still ask for.

    A life is finished once every stage and its inference have a record: rows need records alone. What a newer version
    of the code would plan differently counts as it was asked for.
    """
    book = Book.read(store)
    unfinished = [run for run in book.runs if book.missing(run)]
    needed = {stage.key for run in unfinished for stage in run.stages}
    return store.outputs.unneeded(needed)
