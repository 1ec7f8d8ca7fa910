"""All figures of a report, as SVG and PNG, and why others could not be drawn."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmark.errors import one_line
from benchmark.records.book import Book
from benchmark.report.paper import PaperRow
from benchmark.report.rows import StageRow
from benchmark.report.summary import SummaryRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawn(NamedTuple):
    """The files that were written; and each figure that could not be drawn, with its reason ('n/a: ...')."""

    paths: list[Path]
    missing: list[tuple[str, str]]


Named = tuple[str, Callable[[], "Figure | str"]]
"""The name of a figure, and what makes it or says why there is none."""


def draw(
    folder: Path,
    book: Book,
    stages: Sequence[StageRow],
    summary: Sequence[SummaryRow],
    paper: Sequence[PaperRow],
) -> Drawn:
    """Write every figure that these rows can fill into `folder`, NAME.svg and NAME.png; the same rows, the same bytes.

    `summary` should hold break-evens (`turns.with_break_evens`). A figure that fails or cannot be written is told in
    `missing`, and stops no other; one of that name that an earlier call left is removed. Nothing of matplotlib's
    settings is changed for the caller.
    """
    try:
        from benchmark.report.figures import style
    except ImportError as error:
        return Drawn([], [("figures", f"n/a: {one_line(str(error))}: python -m pip install 'matplotlib>=3.10'")])
    drawn = Drawn([], [])
    for stale in folder.glob("ours_*_group*.*"):  # a group may be gone, or another's number
        with contextlib.suppress(OSError):
            stale.unlink()
    with style.settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's, about looks: no reader of a report can mend them
        for name, make in [*_of_paper(paper), *_of_groups(summary), *_of_folder(book, stages)]:
            try:
                made = make()
                if isinstance(made, str):
                    drawn.missing.append((name, made))
                else:
                    drawn.paths.extend(style.save(made, folder, name))
            except Exception as error:  # a stranger's record may hold any numbers: one figure less, and it is said
                drawn.missing.append((name, f"n/a: it failed: {one_line(repr(error))[:200]}"))
    for name, _ in drawn.missing:
        with contextlib.suppress(OSError):
            style.remove(folder, name)
    return drawn


def _of_paper(paper: Sequence[PaperRow]) -> Iterator[Named]:
    from benchmark.report.figures import of_paper, pareto

    yield "paper_2a", lambda: of_paper.figure_2a(paper)
    yield "paper_2b", lambda: of_paper.figure_2b(paper)
    yield "paper_3a", lambda: of_paper.figure_3a(paper)
    yield "paper_3b", lambda: of_paper.figure_3b(paper)
    yield "paper_3c", lambda: of_paper.figure_3c(paper)
    yield "paper_3d", lambda: "n/a: the paper's table holds no pruner on ResNet18"
    yield "paper_4", lambda: "n/a: the paper printed no data of its Figure 4"
    yield "paper_5", lambda: "n/a: the paper printed no data of its Figure 5"
    yield "paper_6", lambda: of_paper.figure_6(paper)
    yield "paper_pareto", lambda: pareto.of_paper(paper)


def _of_groups(summary: Sequence[SummaryRow]) -> Iterator[Named]:
    """A set of figures for each group of rivals; those after the first have its number in their names."""
    from benchmark.report.figures import evens, groups, of_rows, pareto, phases

    makers: dict[str, Callable[[groups.Group], Figure | str]] = {
        "2a": of_rows.figure_2a, "2b": of_rows.figure_2b, "3a": of_rows.figure_3a, "3b": of_rows.figure_3b,
        "3c": of_rows.figure_3c, "3d": of_rows.figure_3d, "6": of_rows.figure_6, "pareto": pareto.of_group,
        "phases": phases.figure_phases, "crossovers": evens.figure_crossovers,
    }  # fmt: skip  # one figure a line would hide the shape
    found = groups.groups(summary)
    if not found:
        yield from ((f"ours_{name}", lambda: groups.NOTHING) for name in makers)
    others = groups.left_out(summary)
    if others:
        yield f"ours_*_group{len(found) + 1}", lambda: others
    for number, group in enumerate(found, 1):
        after = "" if number == 1 else f"_group{number}"
        for name, make in makers.items():
            yield f"ours_{name}{after}", lambda make=make, group=group: make(group)  # type: ignore[misc]  # bound now


def _of_folder(book: Book, stages: Sequence[StageRow]) -> Iterator[Named]:
    from benchmark.report.figures import batch_size, counter, grades, power, search, sensitivity

    yield "ours_grades", lambda: grades.figure_grades(stages)
    yield "ours_batch_size", lambda: batch_size.figure_batch_size(book, stages)
    yield "ours_4", lambda: sensitivity.figure_4(stages)
    yield "ours_5", lambda: power.figure_5(book, stages)
    yield "ours_power", lambda: power.figure_power(book, stages)
    yield "ours_counter", lambda: counter.figure_counter(stages)
    yield "ours_search", lambda: search.figure_search(book, stages)
