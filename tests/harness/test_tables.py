"""The printed summary: rows that can be told apart, and what a reader must know before quoting a number."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from benchmark.plan.life import lives
from benchmark.report import printed
from benchmark.report.columns import names
from benchmark.report.markup import latex, markdown
from benchmark.report.rows import LifeRow, tell_apart
from benchmark.report.sheets import SETTING, sheets
from benchmark.report.summary import EMPTY, SummaryRow, others_pct
from benchmark.report.tables import _of_sheets, footnotes
from tests.harness.helpers import HERE, tiny_experiment
from tests.report.figure_rows import stage_row

ROW = {
    "experiment": "one", "energy_source": "nvml:energy_counter", "tau": 2.0, "rank_1b": "1", "grade": "A", "scale": "full",
    "missing": "", "n_seeds": 3,
}  # fmt: skip  # one value a line would hide the shape
ABOUT = {
    "method": "baseline", "model": "tiny", "data": "cifar100", "classes": 100, "recipe": "r", "train_images": 50_000,
    "test_images": 10_000, "profile": "fast", "train_precision": "fp32", "deploy_precision": "fp32", "engine": "torch",
    "engine_version": "2", "train_machine": "m", "infer_machine": "m",
}  # fmt: skip  # same


def _notes(**changed):
    return footnotes([_summary(), _summary(**changed)])


def test_a_plain_table_says_its_meter_and_its_exponent():
    assert _notes() == [
        "energy from nvml:energy_counter; IEC in mJ an image; G in percent^tau per W.h, tau = 2, the highest first; ± "
        "is a 95 % interval"
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rank_1b": "1-3"}, "a rank such as 1-3 is a tie"),
        ({"n_seeds": 1}, "not the spread between seeds"),
        ({"grade": "E"}, "estimated, not measured"),
        ({"scale": "small"}, "say nothing about a method"),
        ({"classes": 10}, "are no rivals"),
        ({"notes": "mixes copies"}, "note: one: mixes copies"),
        ({"missing": "seed 1: infer"}, "incomplete: baseline, tiny: seed 1: infer (one)"),
        ({"energy_source": "estimate:tdp_load", "others_pct": 48.2}, "took up to 48 % of the computer's CPU time"),
        ({"energy_source": "estimate:tdp_load"}, "energy from estimate:tdp_load, nvml:energy_counter;"),
    ],
)
def test_what_weakens_a_row_is_said_once(changed, said):
    (note,) = [line for line in _notes(**changed) if said in line]
    assert note not in _notes()


def test_the_share_of_other_work_is_that_of_all_cpu_seconds():
    here = {"energy_source": "estimate:tdp_load"}
    masks = stage_row("mask", seconds=10.0, own_cores=1.0, others_cores=1.0, **here)
    train = stage_row("train", seconds=90.0, own_cores=2.0, others_cores=0.0, **here)
    assert others_pct([masks, train]) == pytest.approx(5.0)  # 10 of 200 seconds
    infer = {"kind": "IEC", "own_cores": 1.0, **here}
    assert others_pct([masks, train, stage_row("infer", **infer, others_cores=3.0)]) == pytest.approx(75.0)
    assert others_pct([masks, train, stage_row("infer", **infer, others_cores=math.nan)]) == pytest.approx(5.0)
    assert math.isnan(others_pct([stage_row("train", **here)]))
    old = stage_row("train", seconds=90.0, **here)  # of a record from before cores were counted
    assert math.isnan(others_pct([masks, old])), "a tenth of the time says nothing of the whole"


def test_only_stages_of_a_cpu_count_and_a_gpus_beside_them_hide_nothing():
    gpu = stage_row("train", own_cores=1.0, others_cores=9.0, energy_source="nvml:counter")
    cpu = stage_row("infer", kind="IEC", own_cores=1.0, others_cores=1.0, energy_source="rapl:package-0")
    assert math.isnan(others_pct([gpu]))
    assert others_pct([gpu, cpu]) == pytest.approx(50.0)
    assert others_pct([replace(gpu, energy_source="estimate:tdp_load"), cpu]) == pytest.approx(90.0)


def test_other_work_is_told_only_where_it_matters():
    assert not [line for line in _notes(others_pct=9.0, energy_source="estimate:tdp_load") if "CPU time" in line]
    assert not [line for line in _notes(others_pct=math.nan) if "CPU time" in line]


def _runs(root, *methods):
    runs = []
    for method in methods:
        target = {
            "_target_": "methods.pruning.plan.Pruning",
            "name": "pruning/l1",
            "criterion": "methods.pruning.criteria.l1:l1",
        }
        plain = tiny_experiment(root)
        runs.append(lives(plain.model_copy(update={"method": {**target, **method}}), HERE)[0].run_file(""))
    return runs


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([{}], [""]),
        ([{"sparsity": 0.3}, {"sparsity": 0.5}], ["sparsity=0.3", "sparsity=0.5"]),
        ([{"mode": "independent", "layers": "all"}, {"mode": "dependency_aware", "layers": "all"}],
         ["mode=independent", "mode=dependency_aware"]),
    ],
)  # fmt: skip  # a case a line
def test_rows_that_would_look_alike_say_in_what_they_differ(tmp_path, methods, expected):
    assert tell_apart(_runs(tmp_path, *methods)) == expected


def test_a_setting_that_only_one_row_has_shows_in_it(tmp_path):
    given, silent = tell_apart(_runs(tmp_path, {"sparsity": 0.3}, {}))
    assert "sparsity=0.3" in given
    assert "sparsity" not in silent


def test_rows_that_do_not_look_alike_need_no_settings(tmp_path):
    one, other = _runs(tmp_path, {"sparsity": 0.3}, {"sparsity": 0.5})
    other = other.model_copy(update={"words": other.words.model_copy(update={"model": "other"})})
    assert tell_apart([one, other]) == ["", ""]


def _summary(**values) -> SummaryRow:
    return SummaryRow(**{**EMPTY, **ABOUT, **ROW, **values})


def show(summary, console, more=(), notes=None) -> None:
    below = footnotes(summary) if notes is None else notes
    printed.show(sheets(summary, more), list(more[0]) if more else [], below, console)


def test_every_word_in_which_rows_differ_is_a_column_and_the_others_stand_above():
    console = Console(width=200, record=True, file=io.StringIO())
    show([_summary(), _summary(recipe="other", profile="published", infer_machine="n")], console)
    text = console.export_text()
    head, _, table = text.partition("method")
    assert head.splitlines()[:4] == [
        "Full-cycle energy",
        "data: cifar100, 100 classes, 50000 training images, 10000 test images, scale full",
        "training: train fp32, on m",
        "inference: torch, version 2, deploy fp32",
    ]
    for word in ("recipe", "profile", "infer_machine", "other", "published"):
        assert word in table
        assert word not in head
    assert "no rivals" in text


def test_rows_on_other_data_have_a_table_of_their_own():
    """They are never compared; a column for each of six words left no room for the numbers."""
    few = _summary(classes=5, train_images=48, max_epochs=1.0, method="pruning/fpgm")
    console = Console(width=160, record=True, file=io.StringIO())
    show([_summary(), few], console)
    text = console.export_text()
    assert text.count("rank(1B)") == text.count("Full-cycle energy") == 2
    first, second = text.split("Full-cycle energy")[1:]
    assert "5 classes, 48 training images, 10000 test images, scale full, epoch limit 1" in second
    assert "pruning/fpgm" in second
    assert "pruning/fpgm" not in first
    assert text.count("energy from nvml:energy_counter") == 1, "notes stand below the last"


def test_what_matters_least_goes_first_where_it_is_narrow():
    row = _summary(acc_pct=70.0, tec_wh=1.5, tec_ci95_wh=0.3, iec_wh=1e-6, iec_ci95_wh=1e-8, g_500m=2.0, g_1b=1.0)
    shown = {}
    for width in range(130, 40, -1):
        console = Console(width=width, record=True, file=io.StringIO())
        show([row], console, notes=[])
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        (told,) = re.findall(r"too narrow here for (.*?): summary", " ".join(text.split())) or [""]
        shown[told] = width
    assert list(shown) == [
        "",
        "n",
        "n, G(500M)",
        "n, G(500M), rank(1B), grade",
        "n, G(500M), rank(1B), grade, the intervals (±)",
    ]


def test_an_ascii_terminal_has_straight_columns():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    row = _summary(acc_pct=70.0, tec_wh=1.5, tec_ci95_wh=0.3, iec_wh=1e-6, iec_ci95_wh=1e-8)
    show([row], Console(width=120, file=stream), notes=[])
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    table = [line for line in lines if line.startswith(("|", "+"))]
    assert "1.5 +-20%" in "".join(table)
    assert len(set(map(len, table))) == 1


def test_a_note_on_ranks_stands_where_only_one_of_two_tables_has_room_for_them():
    rows = [_summary(rank_1b="1-2"), _summary(data="other", method="pruning/" + "very_long_name_of_a_method" * 2)]
    console = Console(width=100, record=True, file=io.StringIO())
    show(rows, console)
    text = console.export_text()
    assert text.count("rank(1B)") == 2, "a heading, and in what there was no room for"
    assert "too narrow here for n, G(500M), rank(1B)" in text
    assert "is a tie" in text


def test_every_setting_of_a_life_has_its_place_above_a_table():
    own = {"experiment", "method", "model", "teacher", "settings"}
    assert {*SETTING, *own} == set(names(LifeRow))


def test_markup_says_what_the_printed_table_says():
    """A paper's table without its data, its machine or the setting in which two rows differ says nothing."""
    rows = [_summary(settings="sparsity=0.3"), _summary(settings="sparsity=0.5"), _summary(classes=5)]
    laid = sheets(rows)
    for lay, line in ((markdown, "data: cifar100, 100 classes, "), (latex, "data: cifar100, 100 classes, ")):
        text = _of_sheets(lay, laid, ["a note"])
        assert line in text
        assert "data: cifar100, 5 classes, " in text
        assert "sparsity=0.3" in text
        assert "sparsity=0.5" in text
        assert text.count("a note") == 1


def test_settings_have_a_column_and_an_unknown_number_no_tilde():
    console = Console(width=160, record=True, file=io.StringIO())
    show([_summary(settings="a=1", grade="E"), _summary(settings="a=2")], console)
    text = console.export_text()
    assert "settings" in text
    assert "a=1" in text
    assert "~-" not in text


@pytest.mark.parametrize("width", [80, 110, 160])
def test_no_number_is_ever_cut(width):
    long = {
        "method": "pruning/activation_mean", "model": "repdistiller/MobileNetV2", "acc_pct": 71.25, "grade": "E",
        "tec_wh": 0.06135, "tec_ci95_wh": 0.0245, "iec_wh": 1.329e-05, "iec_ci95_wh": 1.3e-06, "g_500m": 7.525e-05,
        "g_1b": 3.525e-05, "settings": "mode=dependency_aware sparsity=0.25",
    }  # fmt: skip  # one value a line would hide the shape
    console = Console(width=width, record=True, file=io.StringIO())
    show([_summary(**long)], console)
    text = console.export_text()
    for number in ("71.25", "~0.06135 ±40%", "~47.84 ±9.8%", "~3.525e-05"):
        assert number in text
    assert "…" not in text


@pytest.mark.parametrize("width", [40, *range(60, 201, 7), 101, 159, 160])
def test_no_word_is_ever_broken(width):
    names = [("pruning/fpgm", "nni/vgg16", ""), ("distillation/kd", "repdistiller/resnet8", "repdistiller/resnet14"),
             ("pruning/l1 after distillation/kd", "repdistiller/resnet8", "repdistiller/resnet14")]  # fmt: skip
    numbers = {"acc_pct": 71.25, "grade": "A", "tec_wh": 138.6, "tec_ci95_wh": 1.2, "iec_wh": 5.7e-7, "iec_ci95_wh": 1e-8,
               "g_500m": 12.5, "g_1b": 7.5, "rank_1b": "1-3"}  # fmt: skip
    rows = [_summary(method=method, model=model, teacher=teacher, **numbers) for method, model, teacher in names]
    console = Console(width=width, record=True, file=io.StringIO())
    show(rows, console, notes=[])
    text = console.export_text()
    spread = ("138.6 ±0.87%", "2.052 ±1.8%") if width > 70 else ("138.6", "2.052")
    for word in ("pruning/fpgm", "nni/vgg16", "distillation/kd", "repdistiller/resnet14", *spread):
        assert word in text, width
    assert max(map(len, text.splitlines()[1:])) <= width


def test_a_note_on_ranks_stands_only_below_a_table_that_shows_them():
    rows = [_summary(rank_1b="1-2", g_1b=7.5), _summary(rank_1b="1-2", g_1b=7.4)]
    for width, more, shown in ((200, (), True), (60, (), False), (200, [{"G(2M)": "9.1"}] * 2, False)):
        console = Console(width=width, record=True, file=io.StringIO())
        show(rows, console, more=more)
        assert ("is a tie" in console.export_text()) is shown


def test_notes_break_at_their_spaces_and_are_one_line_in_a_pipe():
    note = "warning: " + "many words of a note that is longer than any terminal " * 4
    for width, lines in ((60, 4), (100, 3), (printed.WIDEST, 1)):
        console = Console(width=width, record=True, file=io.StringIO())
        show([_summary()], console, notes=[note])
        told = console.export_text().partition("warning: ")[2].rstrip("\n").split("\n")
        assert len(told) >= lines, width
        assert (len(told) == 1) is (width == printed.WIDEST)
        assert " ".join(line.strip() for line in told) == note.removeprefix("warning: ").strip()
        assert all(len(line) <= width for line in told) or len(told) == 1


def test_rows_of_one_shape_are_said_to_share_their_measurement():
    one, same, other = (_summary(iec_wh=iec_wh) for iec_wh in (1e-6, 1e-6, 2e-6))
    assert any("share one measurement" in line for line in footnotes([one, same]))
    assert not any("share one measurement" in line for line in footnotes([one, other]))


def test_a_mui_that_has_a_column_already_has_no_second_one():
    console = Console(width=200, record=True, file=io.StringIO())
    show([_summary()], console, more=[{"G(1B)": "7.5", "G(2M)": "9.1"}], notes=[])
    text = console.export_text()
    assert text.count("G(1B)") == 1
    assert "G(2M)" in text
    assert "rank(1B)" not in text, "what is asked stands in the place of what is usual"
