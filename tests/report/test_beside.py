"""The paper's tables with ours beside them, and TEC by both conventions."""

from __future__ import annotations

import csv
import math

import pytest

from benchmark.plan.config import parse
from benchmark.plan.life import lives, place_of
from benchmark.plan.quick import compose_all
from benchmark.records.book import Book
from benchmark.report.beside import beside_paper
from benchmark.report.laid import beside
from benchmark.report.paper import PAPER, paper_rows
from benchmark.report.rows import StageRow
from benchmark.report.summary import EMPTY, SummaryRow
from tests.harness.helpers import CPU
from tests.report.figure_rows import PlannedRun
from tests.report.test_reproduction import book_of, ours


def laid(book: Book, summary, stages=()) -> dict:
    return {table.name: table for table in beside_paper(PAPER, book, stages, summary)}


@pytest.fixture
def papers():
    return paper_rows(PAPER / "paper_tables.csv")


def printed(number: str) -> list[dict[str, str]]:
    with (PAPER / "paper_tables.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["table"] == number]


def test_without_any_run_the_paper_stands_alone_and_says_so(papers):
    found = laid(Book(), [])
    table = found["against_paper"]
    assert len(table.cells) == len(papers) == 19
    vgg16 = next(row for row in table.cells if row["row"] == "VGG16 Base training")
    assert vgg16["acc %"] == "- (73.37)"
    assert vgg16["grade"] == "-"
    assert any("missing, because it was not run" in note for note in table.notes)
    assert found["conventions"].files() == {}, "a table without a row is no file"


def test_every_printed_g_is_met(papers):
    """G recomputed from the printed inputs, against what the paper prints: its IEC has three digits."""
    raw = laid(Book(), [])["against_paper"].raw.set_index("row")
    for row in printed("3"):
        name = f"{row['model_or_pair']} {row['method']}" + (
            f" ({row['search_dataset']})" if row["search_dataset"] else ""
        )
        assert raw.loc[name, "g_500m_paper"] == pytest.approx(float(row["g_500m"]), rel=0.01)
        assert raw.loc[name, "g_1b_paper"] == pytest.approx(float(row["g_1b"]), rel=0.01)


def test_ours_stand_beside_with_their_distance(papers):
    rows = [ours(paper, tec_wh=paper.tec_wh * 1.1) for paper in papers]
    table = laid(book_of(papers), rows)["against_paper"]
    assert all(cells["TEC W.h"].endswith("+10.0 %)") for cells in table.cells)
    assert table.cells[0]["rank(1B)"].endswith("of 19 (17 of 19)")
    assert all(cells["acc %"].endswith("+0.0 %)") for cells in table.cells)
    assert any(note.startswith("rank agreement with the paper on G(1B): Kendall's tau") for note in table.notes)
    assert set(table.files()) == {"against_paper.csv", "against_paper.md", "against_paper.tex"}


def test_table_4_holds_the_papers_boards_and_ours():
    blank = {field: "" if kind.type == "str" else math.nan for field, kind in StageRow.__dataclass_fields__.items()}
    own = {
        "method": "distillation/kd", "teacher": "repdistiller/wrn_40_2", "model": "repdistiller/wrn_16_2", "stage": "distil",
        "scale": "full", "experiment": "one epoch", "gpu_util_pct": 90.0, "mem_util_pct": 40.0, "mean_power_w": 300.0,
        "seconds": 12.0, "energy_wh": 1.01, "device_name": "NVIDIA H100", "energy_source": "nvml:counter", "grade": "A",
        "machine": "h100", "key": "k",
    }  # fmt: skip  # one value a line would hide the row
    book = Book()
    book.runs = [
        PlannedRun("one epoch", {"recipe.epochs": "1"}, "pruning/l1"),
        PlannedRun("whole", {"recipe.epochs": "240"}, "pruning/l1"),
    ]
    rows = [StageRow(**{**blank, **own}), StageRow(**{**blank, **own, "experiment": "whole", "key": "another"})]
    table = laid(book, [], rows)["table4"]
    assert [row["GPU"] for row in table.cells] == ["Tesla P100", "Tesla P40", "Tesla V100 16GB", "NVIDIA H100"]
    assert [row["power x time W.h"] for row in table.cells] == ["1.443", "1.158", "0.6975", "1"]
    for row, cells in zip(printed("4"), table.cells, strict=False):
        own_product = float(row["avg_power_w"]) * float(row["time_s"]) / 3600
        assert float(cells["power x time W.h"]) == pytest.approx(own_product, rel=1e-3)


def whole(method: str, teacher: str, model: str, acc_pct: float, **changes) -> SummaryRow:
    own = {"method": method, "teacher": teacher, "model": model, "acc_pct": acc_pct, "scale": "full", "data": "cifar100",
           "n_seeds": 3, "tau": 2.0, "tec_wh": 100.0, "base_wh": 60.0, "retrain_wh": 40.0, "iec_wh": 1e-7, "grade": "A",
           "experiment": f"{method}-{model}"}  # fmt: skip
    return SummaryRow(**(EMPTY | own | changes))


def test_published_accuracies_find_the_row_of_their_pair():
    """And no other: an engine in INT8, another scale, other settings and what was done afterwards are other rows."""
    pair = ["pair=vgg13__vgg8"]
    kd, at = ["method=distillation/kd", *pair], ["method=distillation/at", *pair]
    jobs = {
        73.5: kd, 70.0: ["method=baseline", "model=repdistiller/vgg8"], 61.0: [*kd, "deploy_precision=int8"],
        50.0: ["method=distillation/crd", *pair, "scale=small"], 40.0: ["method=pruning/l1", "start=distillation/at", *pair],
        30.0: [*at, "method.weights.term=7"], 20.0: ["method=distillation/sp", *pair, "recipe.epochs=3"],
    }  # fmt: skip  # one job a line says no more
    runs = {acc_pct: run_of(job) for acc_pct, job in jobs.items()}
    rows = [
        whole(run.words.method, run.words.teacher, run.words.model, acc_pct, scale=run.words.scale, profile="fast",
              deploy_precision=run.words.deploy_precision, experiment=run.experiment)
        for acc_pct, run in runs.items()
    ]  # fmt: skip
    book = Book()
    book.runs = list(runs.values())
    lines = laid(book, rows)["distillation_published"].raw
    of_pair = lines[lines["pair"] == "vgg13__vgg8"].set_index("method")
    assert of_pair.loc[["kd"], "points"].iloc[0] == pytest.approx(73.5 - 72.98)
    assert of_pair.loc[["student"], "points"].iloc[0] == pytest.approx(70.0 - 70.36)
    for method in ("crd", "at", "sp", "teacher"):
        assert math.isnan(of_pair.loc[[method], "points"].iloc[0]), method


def run_of(words: list[str]):
    (config,) = compose_all([words])
    experiment, _ = parse(config, CPU)
    (life,) = lives(experiment, place_of(experiment, CPU, []))
    return life.run_file("2026-01-01T00:00:00+00:00")


def test_both_conventions_of_tec():
    kd = whole("distillation/kd", "repdistiller/vgg13", "repdistiller/vgg8", 73.0)
    l1 = whole("pruning/l1", "", "nni/vgg16", 70.0)
    agp = whole("pruning/l2", "", "nni/vgg16", 70.0)
    both = whole("pruning/l1 after distillation/kd", "repdistiller/vgg13", "repdistiller/vgg8", 70.0)
    book = Book()
    book.runs = [
        PlannedRun(l1.experiment, {"method.schedule": "one_shot", "method.finetune_epochs": "20"}, "pruning/l1"),
        PlannedRun(both.experiment, {"method.schedule": "one_shot", "method.finetune_epochs": "20"}, "pruning/l1"),
        PlannedRun(agp.experiment, {"method.schedule": "agp", "method.finetune_epochs": "20"}, "pruning/l1"),
    ]
    raw = laid(book, [kd, l1, agp, both])["conventions"].raw
    told = dict(zip(raw["method"] + ": " + raw["convention"], raw["tec_wh"], strict=True))
    assert told == {
        "distillation/kd: with the teacher's training": 100.0,
        "distillation/kd: without the teacher's training": 40.0,
        "pruning/l1: 20 epoch(s) of fine-tuning, as run": 100.0,
        "pruning/l1: 160 epochs of fine-tuning, computed": 60.0 + 40.0 * 8,
    }
    without = raw[raw["convention"] == "without the teacher's training"].iloc[0]
    assert without["g_1b"] == pytest.approx(73.0**2 / (1e9 * 1e-7 + 40.0))


def test_numbers_side_by_side():
    assert beside(1.02, 1.0) == "1.02 (1, +2.0 %)"
    assert beside(math.nan, 1.0) == "- (1)"
    assert beside(3.0, math.nan, ".1f", "~") == "~3.0"
