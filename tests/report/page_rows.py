"""Rows for the page: made up, with names that nobody should trust."""

from __future__ import annotations

from pathlib import Path

from benchmark.records.book import Book
from benchmark.report.page.content import Source
from benchmark.report.paper import PAPER, paper_rows
from benchmark.report.summary import EMPTY, SummaryRow

HOSTILE = '</script><img src=x onerror="document.title=1"><!-- " \' & @@LIBRARY@@ \u2028'

NUMBERS = {  # accuracy in percent, TEC and IEC in W.h, each with its half-width
    "baseline": (73.4, 0.2, 138.6, 1.2, 8.9e-7, 2e-8),
    "pruning/l1": (71.9, 0.3, 155.8, 1.5, 5.6e-7, 2e-8),
    "pruning/fpgm": (71.6, 0.3, 155.9, 1.5, 5.7e-7, 2e-8),
    "distillation/kd": (73.0, 0.2, 181.6, 2.0, 5.4e-7, 1e-8),
    "quantization/int8": (73.2, 0.2, 138.6, 1.2, 5.7e-7, 6e-8),
}


def row(method: str, **changes: object) -> SummaryRow:
    """A complete summary row of three seeds, in the style of one measured on a GPU."""
    acc_pct, acc_ci95_pct, tec_wh, tec_ci95_wh, iec_wh, iec_ci95_wh = NUMBERS[method]
    own = {
        "experiment": method, "method": method, "model": "nni/vgg16", "scale": "full", "data": "cifar100", "n_seeds": 3,
        "acc_pct": acc_pct, "acc_ci95_pct": acc_ci95_pct, "tec_wh": tec_wh, "tec_ci95_wh": tec_ci95_wh,
        "iec_wh": iec_wh, "iec_ci95_wh": iec_ci95_wh, "base_wh": tec_wh, "compress_wh": 0.0, "retrain_wh": 0.0,
        "grade": "A", "energy_source": "nvml:counter", "train_machine": "gpu", "infer_machine": "gpu", "tau": 2.0,
    }  # fmt: skip  # one value a line would hide the row
    return SummaryRow(**(EMPTY | own | changes))


def source(*rows: SummaryRow, results: Path = Path("nowhere")) -> Source:
    """What a page of these rows, and of the paper's, is made from."""
    return Source(Book(), [], rows, paper_rows(PAPER / "paper_tables.csv"), results)


def all_rows() -> list[SummaryRow]:
    """One of each, one that is incomplete and one with a hostile name, and one that is no rival of the others."""
    return [
        *map(row, NUMBERS),
        row(
            "pruning/l1",
            experiment="unfinished",
            tec_wh=float("nan"),
            missing="seed 0: finetune",
            settings="sparsity=0.9",
        ),
        row("distillation/kd", experiment="unsure", tec_ci95_wh=float("nan"), tec_wh=170.0),
        row("pruning/l1", experiment=HOSTILE, model=HOSTILE, settings=HOSTILE, notes=HOSTILE, iec_wh=9e-7),
        row("baseline", experiment="elsewhere", infer_machine="cpu", train_machine="cpu", grade="E", n_seeds=1),
    ]
