"""The figures: what they draw is what the rows say, the same bytes each time, and a reason where there is nothing."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from benchmark.records.book import Book
from benchmark.report.crossovers import crossover
from benchmark.report.figures import (
    batch_size,
    counter,
    draw,
    evens,
    grades,
    of_paper,
    of_rows,
    pareto,
    phases,
    power,
    search,
    sensitivity,
    style,
)
from benchmark.report.figures.g_curves import TAUS
from benchmark.report.figures.groups import groups
from benchmark.report.greeness import greeness, greeness_ci95
from benchmark.report.turns import with_break_evens
from tests.report.figure_rows import book_of, keep_samples, record, stage_row, summary_row
from tests.report.test_paper import APOZ, BASE, CRD8, INT8, NAS_100, ROWS, _cycle

PAPER = list(ROWS.values())
FIVE = (BASE, APOZ, INT8, CRD8, NAS_100)
CONTROL = "tiny\x1b[31m\n\u202ered"


@pytest.fixture(autouse=True)
def _look():
    with style.settings():
        yield


def caption(figure) -> str:
    return figure.texts[0].get_text().replace("\n", " ")


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def lines(axes) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.get_lines()]


# --- the paper's ---------------------------------------------------------------------------------------------------


def test_paper_2a_draws_g_of_five_methods():
    figure = of_paper.figure_2a(PAPER)
    above, below = figure.axes
    assert len(labels(figure)) == 5
    for name, (mui, g) in zip(FIVE, lines(above), strict=False):
        assert g == pytest.approx([ROWS[name].g(each) for each in mui], rel=1e-12)
        assert (mui[0], mui[-1]) == (1e6, pytest.approx(1e11))
    mui, ratio = lines(below)[1]
    assert ratio == pytest.approx([ROWS[APOZ].g(each) / ROWS[BASE].g(each) for each in mui])
    assert "the paper's Tables 3 and 5" in caption(figure)


def test_crossings_of_paper_2a_are_those_of_the_table():
    for axes in of_paper.figure_2a(PAPER).axes:
        marked = lines(axes)[-1][0]
        pairs = [(one, other) for number, one in enumerate(FIVE) for other in FIVE[number + 1 :]]
        found = [crossover(_cycle(ROWS[one]), _cycle(ROWS[other])).mui for one, other in pairs]
        assert marked == pytest.approx(sorted(mui for mui in found if mui < 1e11), rel=1e-12)
        # section 6.1 of the reference, in millions, each with half a unit of its last digit
        for told, half in ((1.8, 0.05), (97.9, 0.05), (358, 0.5), (459, 0.5), (3120, 5), (4200, 5)):
            assert np.abs(marked / 1e6 - told).min() <= max(0.01 * told, half)


def test_paper_2b_shows_the_search_overtaking_the_pruner_above_tau_2_75():
    above, below = of_paper.figure_2b(PAPER).axes
    for name, (tau, g) in zip(FIVE, lines(above), strict=True):
        row = ROWS[name]
        assert g == pytest.approx([greeness(row.acc_pct, row.tec_wh, row.iec_wh, 1e9, each) for each in tau])
    apoz, nas = lines(below)[1][1], lines(below)[4][1]
    turn = TAUS[int(np.argmax(nas > apoz))]
    assert turn == pytest.approx(2.75, abs=TAUS[1])


@pytest.mark.parametrize(
    ("make", "curves", "told"),
    [(of_paper.figure_3a, 2, "in part: CRD by pair"), (of_paper.figure_3b, 2, "its table holds KD and CRD"),
     (of_paper.figure_3c, 2, "its table holds VGG16 alone")],
)  # fmt: skip  # one value a line would hide the table
def test_figures_3_say_what_the_table_lacks(make, curves, told):
    figure = make(PAPER)
    assert len(lines(figure.axes[0])) == curves + 1, "the curves, and the crossings"
    assert told in caption(figure)


def test_paper_6_has_a_panel_for_each_tau():
    five, ten = of_paper.figure_6(PAPER).axes
    for axes, tau in ((five, 5.0), (ten, 10.0)):
        mui, g = lines(axes)[3]
        assert g == pytest.approx([ROWS[CRD8].g(each, tau) for each in mui])


def test_a_front_holds_what_nobody_beats():
    points = [pareto.Point(row.name, row.family, of_paper.cycle_of(row)) for row in PAPER]
    for mui in pareto.MUIS:
        found = pareto.front(points, mui)
        assert found
        for each in points:
            spent = pareto.spent_wh(each.cycle, mui)
            acc = each.cycle.acc_pct.value
            beaten = [o for o in points if pareto.spent_wh(o.cycle, mui) < spent and o.cycle.acc_pct.value > acc]
            assert not (each in found and beaten)
    figure = pareto.of_paper(PAPER)
    assert sum(len(container[0].get_xdata()) for container in figure.axes[0].containers) == len(PAPER)
    assert "1) VGG16 INT8" in caption(figure)


# --- files ---------------------------------------------------------------------------------------------------------


def test_the_same_rows_are_the_same_bytes(tmp_path):
    (group,) = groups([summary_row("baseline"), summary_row("pruning/l1")])
    first, second = (style.save(phases.figure_phases(group), tmp_path / name, "it") for name in "ab")
    assert [path.name for path in first] == ["it.svg", "it.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size > 10_000
    assert b"<dc:date>" not in first[0].read_bytes()


def test_nothing_of_matplotlib_stays_changed_and_pyplot_is_never_asked(monkeypatch):
    before = dict(matplotlib.rcParams)
    with style.settings():
        matplotlib.rcParams["font.size"] = 99
    assert dict(matplotlib.rcParams) == before
    modules = list(Path(draw.__file__).parent.glob("*.py"))
    assert len(modules) > 10
    assert [path.name for path in modules if "matplotlib.pyplot" in path.read_text()] == []


def test_the_door_of_the_figures_loads_no_matplotlib():
    tree = ast.parse(Path(draw.__file__).read_text())
    loaded = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert loaded
    assert not [name for name in loaded if name.startswith(("matplotlib", "benchmark.report.figures"))]


def test_an_empty_folder_has_a_reason_for_each_figure(tmp_path):
    for name in ("ours_4.svg", "mine.svg"):
        (tmp_path / name).write_text("of an earlier call")
    drawn = draw.draw(tmp_path, Book(), [], [], [])
    assert drawn.paths == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]
    names = [name for name, _ in drawn.missing]
    assert {"paper_2a", "ours_2a", "ours_3d", "ours_4", "ours_5", "ours_power", "ours_search", "ours_grades"} < set(
        names
    )
    assert len(names) == len(set(names))
    assert all(why.startswith("n/a: ") and "failed" not in why for _, why in drawn.missing)


def test_a_figure_that_fails_is_told_and_stops_no_other(tmp_path, monkeypatch):
    def fails(book, stages):
        raise ZeroDivisionError("of a stranger's\nrecord")

    monkeypatch.setattr(power, "figure_power", fails)
    drawn = draw.draw(tmp_path, Book(), [stage_row("train")], [], [])
    assert [path.name for path in drawn.paths] == ["ours_grades.svg", "ours_grades.png"]
    why = dict(drawn.missing)["ours_power"]
    assert "it failed: ZeroDivisionError" in why
    assert "\n" not in why


def test_each_group_of_rivals_has_its_figures_up_to_three(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "save", lambda figure, folder, name: [folder / f"{name}.svg"])
    rows = [summary_row("baseline", data=name) for name in "abcd"]
    names = {path.stem for path in draw.draw(tmp_path, Book(), [], rows, PAPER).paths}
    assert {"paper_2a", "paper_2b", "paper_3a", "paper_3b", "paper_3c", "paper_6", "paper_pareto"} < names
    assert {"ours_2a", "ours_2a_group2", "ours_phases_group3"} < names
    assert not [name for name in names if name.endswith("_group4")]


def test_hostile_names_are_words(tmp_path):
    names = ["$\\frac{1$", "_hidden", CONTROL, "漢字😀", "x" * 5000, "a $b$ c", "{{}}%s\\n", ""]
    rows = [summary_row(f"f{n}/{name}", model=name, settings=name, tec_wh=100.0 + n) for n, name in enumerate(names)]
    rows = [replace(row, train_machine="$" * 200, data="_$x$") for row in rows]
    (group,) = groups(rows)
    assert len({each.name for each in group.rows}) == len(names)
    figure = of_rows.figure_2a(group)
    shown = labels(figure)
    assert len(shown) == len(names)
    assert all(label.isprintable() and len(label) < 120 for label in shown)
    paths = style.save(phases.figure_phases(group), tmp_path, "hostile")
    assert min(path.stat().st_size for path in paths) > 10_000


# --- ours ----------------------------------------------------------------------------------------------------------


def test_a_group_holds_rivals_with_complete_seeds_and_the_largest_comes_first():
    rows = [summary_row("baseline", data="small"), summary_row("baseline"), summary_row("pruning/l1")]
    rows += [summary_row("pruning/l2", n_seeds=0), summary_row("pruning/apoz", tec_wh=math.nan)]
    rows += [summary_row("nas/darts", acc_pct=0.0), summary_row("nas/random", tec_wh=1e300)]  # no axis has room
    first, second = groups(rows)
    assert [each.row.method for each in first.rows] == ["baseline", "pruning/l1"]
    assert [each.row.data for each in second.rows] == ["small"]


def test_an_estimate_is_called_one_and_one_seed_is_said():
    (group,) = groups([summary_row("baseline", grade="E", energy_source="estimate:tdp_load")])
    assert group.rows[0].name == "~baseline net"
    assert "estimate (grade E), not measured" in group.source
    assert "n = 1 seed; the spread between seeds is in no interval" in group.source
    (measured,) = groups([summary_row("baseline", n_seeds=3, acc_ci95_pct=0.2)])
    assert measured.rows[0].name == "baseline net"
    assert "estimate" not in measured.source
    assert "n = 3 seeds." in measured.source


def test_ours_2a_has_the_best_of_each_family_with_bands():
    rows = [summary_row("baseline"), summary_row("pruning/l1", iec_wh=8e-7), summary_row("pruning/l2", iec_wh=7e-7)]
    (group,) = groups(rows)
    figure = of_rows.figure_2a(group)
    assert labels(figure) == ["baseline net", "l2 net"]
    above, _ = figure.axes
    row = group.rows[2].cycle
    (mui, g), band = lines(above)[1], above.collections[1].get_paths()[0].vertices
    assert g == pytest.approx([greeness(70.0, 100.0, 7e-7, each) for each in mui])
    half = greeness_ci95(*row, mui[0])
    at_first = sorted(y for x, y in band if x == mui[0])
    assert (at_first[0], at_first[-1]) == pytest.approx((g[0] - half, g[0] + half))
    for half_wh in (math.nan, math.inf):
        (unknown,) = groups([summary_row("baseline", iec_ci95_wh=half_wh)])
        assert len(of_rows.figure_2a(unknown).axes[0].collections) == 0, "an unknown interval is no band"


def test_figures_3_choose_their_rows():
    kd = [summary_row(f"distillation/{name}", "small", teacher="large") for name in ("kd", "crd")]
    rows = [
        summary_row("baseline"), summary_row("baseline", "small"), *kd,
        summary_row("distillation/crd", "small", teacher="huge"), summary_row("pruning/l1"),
        summary_row("quantization/int8", deploy_precision="int8"),
    ]  # fmt: skip  # one row a line would hide the group
    (group,) = groups(rows)
    assert labels(of_rows.figure_3a(group)) == ["crd large→small", "crd huge→small"]
    assert labels(of_rows.figure_3b(group)) == ["baseline small", "kd large→small", "crd large→small"]
    assert labels(of_rows.figure_3c(group)) == ["int8 net"]
    assert labels(of_rows.figure_3d(group)) == ["baseline net", "l1 net"]
    (bare,) = groups([summary_row("baseline")])
    for make in (of_rows.figure_3a, of_rows.figure_3b, of_rows.figure_3c, of_rows.figure_3d):
        assert make(bare).startswith("n/a: no row of ")


def test_too_many_curves_are_the_best_and_it_is_said():
    rows = [summary_row("baseline")] + [summary_row(f"pruning/p{n}", iec_wh=1e-6 + n * 1e-8) for n in range(20)]
    figure = of_rows.figure_3d(groups(rows)[0])
    assert len(labels(figure)) == 8
    assert "the best 7 of 20" in caption(figure)


def test_bars_of_phases_are_as_long_as_the_life():
    figure = phases.figure_phases(groups([summary_row("baseline"), summary_row("pruning/l1", compress_wh=math.nan)])[0])
    left, right = figure.axes
    ends = {bar.get_y(): bar.get_x() + bar.get_width() for bar in right.patches}
    assert max(ends.values()) == pytest.approx(90 + 4 + 6 + 5e8 * 1e-6)
    assert min(ends.values()) == pytest.approx(90 + 6 + 5e8 * 1e-6), "an unknown phase has no bar"
    assert max(bar.get_x() + bar.get_width() for bar in left.patches) == pytest.approx(100)


def test_break_evens_are_points():
    rows = [summary_row("baseline", base_wh=100.0), summary_row("pruning/l1", tec_wh=120.0, iec_wh=8e-7)]
    (group,) = groups(with_break_evens(rows))
    found = [x[0] for x, _ in lines(evens.figure_crossovers(group).axes[0]) if len(x) == 1]
    assert found == pytest.approx([1e8])
    (alone,) = groups(rows)
    assert evens.figure_crossovers(alone).startswith("n/a: no row's G crosses")


def test_grades_are_shares_of_records():
    rows = [stage_row("a", grade="B"), stage_row("b", grade="E"), stage_row("b", grade="E", first_mention=False)]
    figure = grades.figure_grades(rows)
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [50, 50]
    assert labels(figure) == ["B: counter, interpolated", "E: estimate, no meter"]


def test_iec_by_batch_size_is_the_curve_of_the_record():
    points = [{"batch_size": size, "joules": 3.6 / size} for size in (1, 8)]
    hostile = [{"batch_size": "8"}, {"batch_size": 4, "joules": None}, 7, {"batch_size": 2, "joules": math.nan}]
    book = book_of(record("k", {"curve": points + hostile}, group="g"), record("bad", {"curve": "no"}, group="g"))
    rows = [stage_row("inference", kind="IEC", key=key, iec_wh=1e-4, batch_size=8.0) for key in ("k", "bad")]
    figure = batch_size.figure_batch_size(book, rows)
    x, y = lines(figure.axes[0])[0]
    assert list(x) == [1, 8]
    assert y == pytest.approx([1000.0, 125.0]), "3.6 J are 1000 µW.h"
    assert batch_size.figure_batch_size(Book(), rows).startswith("n/a: ")


def test_a_measurement_that_was_taken_again_has_the_newest_curve():
    def of(joules: float, before: int):
        curve = [{"batch_size": size, "joules": joules} for size in (1, 8)]
        return record("k", {"curve": curve, "measured_before": before}, group="g")

    rows = [stage_row("inference", kind="IEC", key="k", iec_wh=1e-4, batch_size=8.0)]
    for order in ((of(3.6, 1), of(7.2, 0)), (of(7.2, 0), of(3.6, 1))):
        _, y = lines(batch_size.figure_batch_size(book_of(*order), rows).axes[0])[0]
        assert y == pytest.approx([1000.0, 1000.0])


def test_figure_4_draws_what_was_measured_by_batch_size():
    rows = [
        stage_row("train", experiment=f"e{size}", settings=f"a=1 recipe.batch_size={size}", seconds=1000.0 / size,
                  gpu_util_pct=50.0)
        for size in (32, 64)
    ]  # fmt: skip  # one value a line would hide the row
    figure = sensitivity.figure_4(rows)
    by_words = {axes.get_ylabel(): axes for axes in figure.axes}
    x, y = lines(by_words["time [s]"])[0]
    assert list(x) == [32, 64]
    assert y == pytest.approx([1000 / 32, 1000 / 64])
    assert [text.get_text() for text in by_words["peak memory [GiB]"].texts] == ["n/a: not measured"]
    assert list(by_words["GPU utilisation [%]"].texts) == []
    assert "sensitivity/batch_size" in sensitivity.figure_4(rows[:1])


def test_counter_and_polling_are_compared_where_both_are_known():
    rows = [stage_row("a", polled_wh=1.1), stage_row("b", energy_wh=2.0), stage_row("c", energy_source="estimate:x")]
    figure = counter.figure_counter(rows)
    assert [list(x) for x, _ in lines(figure.axes[0])] == [[1.0], [1.0, 1.0]], "the point, and the line of agreement"
    assert lines(figure.axes[1])[0][1] == pytest.approx([10.0])
    assert counter.figure_counter(rows[1:]).startswith("n/a: no stage has both")


# --- readings and searches -----------------------------------------------------------------------------------------


def test_power_of_a_life_is_its_readings_with_its_stages(tmp_path):
    keep_samples(tmp_path, "train")
    keep_samples(tmp_path, "prune", seconds=5)
    (tmp_path / "records" / "made-by-hand" / "broken.samples.csv.gz").write_bytes(b"no gzip")
    rows = [stage_row("train"), stage_row("prune", phase="compress"), stage_row("broken"), stage_row("none")]
    figure = power.figure_power(book_of(results=tmp_path), rows)
    assert labels(figure) == ["base", "compress"]
    assert "1) train 9.9 s; 2) prune 4.9 s" in caption(figure)
    watts = np.concatenate([y for x, y in lines(figure.axes[0]) if len(x) > 2])
    assert (watts.min(), watts.max()) == (100, 300)
    assert power.figure_power(Book(), rows) == power.NOTHING
    assert power.figure_power(book_of(results=tmp_path), rows[2:]) == power.NOTHING


def test_figure_5_shows_that_slow_sampling_sees_another_power(tmp_path):
    keep_samples(tmp_path, "train")
    figure = power.figure_5(book_of(results=tmp_path), [stage_row("none"), stage_row("train")])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.partition(",")[0] for title in titles] == [
        "every 0.1 s: mean 120.0 W", "every 0.5 s: mean 200.0 W", "every 1 s: mean 300.0 W",
    ]  # fmt: skip  # one title a line would hide the list
    assert power.figure_5(Book(), [stage_row("train")]) == power.NOTHING


def test_a_book_finds_the_readings_of_a_stage_and_of_the_only_measurement(tmp_path):
    keep_samples(tmp_path, "own")
    keep_samples(tmp_path, "measured.0a1b2c3d")
    book = book_of(results=tmp_path)
    assert book.samples("made-by-hand", "own").name == "own.samples.csv.gz"
    assert book.samples("made-by-hand", "measured").name == "measured.0a1b2c3d.samples.csv.gz"
    keep_samples(tmp_path, "measured.11111111")
    assert book.samples("made-by-hand", "measured") is None, "nothing tells which of them is meant"
    assert book.samples("made-by-hand", "*") is None


def test_a_search_is_drawn_from_its_log():
    history = [{"epoch": number, "entropy": 1.0 - number / 4} for number in range(3)]
    alphas = {str(number): [[0.0, math.log(1 + number)], [0.0, 0.0, 0.0]] for number in range(3)}
    log = {"search": {"history": history, "alphas": alphas}}
    strange = [record("x", {"search": told}) for told in ("no", {"history": 3}, {"history": [], "alphas": {}})]
    book = book_of(record("s", log), strange[0])
    rows = [stage_row("search", key=key, phase="compress", method="nas/darts") for key in ("s", "x")]
    figure = search.figure_search(book, rows)
    assert lines(figure.axes[0])[0][1] == pytest.approx([1.0, 0.75, 0.5])
    (found,) = search.searches(book, rows)
    assert found.winners == pytest.approx(np.array([[1 / 2, 2 / 3, 3 / 4], [1 / 3, 1 / 3, 1 / 3]]))
    for each in strange:
        assert search.figure_search(book_of(each), rows).startswith("n/a: no record of a gradient search")
