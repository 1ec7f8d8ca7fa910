"""Frees the disk of what no unfinished life needs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from benchmark.records.book import Book
from benchmark.records.files import StoreError
from benchmark.records.store import Store


def removable(store: Store, without: Collection[str] = ()) -> list[Path]:
    """Files under artifacts/ that no life which was asked for and is not finished can still ask for.

    A life is finished once every stage and its inference have a record: rows need records alone. What a newer version
    of the code would plan differently counts as it was asked for; so does every results folder that ever used these
    artifacts, but those named in `without`. Raises StoreError where one of them is absent or holds what cannot be read.
    """
    needed: set[str] = set()
    for results in {store.results.resolve(), *store.outputs.users(without)}:
        book = Book.read(Store(results, store.artifacts))
        if book.unreadable:  # what it asks for is not known: nothing of it may go
            raise StoreError(f"{book.unreadable[0]}: mend or remove it first, then free")
        needed |= {stage.key for run in book.runs if book.missing(run) for stage in run.stages}
    return store.outputs.unneeded(needed)
