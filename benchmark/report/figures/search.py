"""A search of architectures, drawn: how undecided it is from epoch to epoch, and which operations win at each edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.report.figures.groups import estimated, source_of_stages
from benchmark.report.figures.style import blank, legend, looks
from benchmark.report.rows import StageRow, short_method

MOST_SEARCHES = 6


class Search(NamedTuple):
    """A search: its entropy (nat) by epoch; how likely the likeliest operation is [edge, epoch], at epochs `kept`."""

    name: str
    row: StageRow
    epochs: list[int]
    entropy: list[float]
    winners: NDArray[np.float64]
    kept: list[int]


def figure_search(book: Book, stages: Sequence[StageRow]) -> Figure | str:
    """Entropy of every search; below it, of the longest, how sure each edge is of its operation."""
    found = searches(book, stages)
    if not found:
        return "n/a: no record of a gradient search (nas/darts, nas/proxylessnas) with its log"
    kept = sorted(found, key=lambda each: -len(each.epochs))[:MOST_SEARCHES]
    longest = kept[0]
    what = f"Searches: mean entropy of an edge's choice (ln of its operations: undecided); below: {longest.name}."
    labels = [each.name for each in kept]
    figure = blank(4.0, f"{what} {source_of_stages([each.row for each in kept])}", labels)
    above, below = figure.subplots(2, 1)
    handles = []
    for each, look in zip(kept, looks(len(kept)), strict=True):
        every = max(1, len(each.epochs) // 8)
        style = {"ls": look.dashes, "marker": look.marker, "color": look.colour, "mfc": "white", "markevery": every}
        handles += above.plot(each.epochs, each.entropy, **style)
    above.set(xlabel="epoch of the search", ylabel="entropy [nat]")
    above.locator_params(axis="x", integer=True)
    edges = np.arange(longest.winners.shape[0] + 1) - 0.5
    times = np.append(np.array(longest.kept, dtype=float), longest.kept[-1] + 1) - 0.5
    most = max(0.2, math.ceil(10 * longest.winners.max()) / 10)
    mesh = below.pcolormesh(times, edges, longest.winners, cmap="cividis", vmin=0, vmax=most, rasterized=True)
    below.set(xlabel="epoch of the search", ylabel="edge")
    below.locator_params(integer=True)
    below.grid(visible=False)
    figure.colorbar(mesh, ax=below, location="bottom", aspect=30, label="probability of the likeliest operation")
    legend(figure, handles, labels)
    return figure


def searches(book: Book, stages: Sequence[StageRow]) -> list[Search]:
    """The gradient searches of a folder whose records hold a log."""
    found = []
    for row in stages:
        record = book.firsts.get((row.machine, row.key))
        if row.first_mention and row.phase == "compress" and record is not None:
            search = _search(row, record)
            if search is not None:
                found.append(search)
    return found


def _search(row: StageRow, record: Record) -> Search | None:
    """What a record's details say of a search; None where they say nothing of one, or not in its words."""
    told = record.details.get("search")
    try:
        history, alphas = told["history"], told["alphas"]  # type: ignore[index]  # whatever it is: see below
        epochs = [int(each["epoch"]) for each in history]
        entropy = [float(each["entropy"]) for each in history]
        kept = sorted(int(number) for number in alphas)
        winners = np.array([[_most_likely(edge) for edge in alphas[str(number)]] for number in kept]).T
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None
    if not epochs or winners.ndim != 2 or not winners.size or not all(map(math.isfinite, entropy)):
        return None
    name = f"{'~' if estimated(row) else ''}{short_method(row.method)} {row.model}, seed {row.seed}"
    return Search(name, row, epochs, entropy, winners, kept)


def _most_likely(alphas: Sequence[float]) -> float:
    """The largest softmax probability of an edge's parameters. Raises ValueError where there is none."""
    numbers = [float(alpha) for alpha in alphas]
    return 1 / math.fsum(math.exp(number - max(numbers)) for number in numbers)
