"""The paper's figures, as far as its own tables go: 2a, 2b, 3a to 3c and 6. They check the plotting without any run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmark.report.crossovers import Cycle
from benchmark.report.figures.g_curves import mui_figure, tau_figure, taus_figure
from benchmark.report.greeness import Uncertain
from benchmark.report.paper import PaperRow

Wanted = tuple[tuple[str, str, str, str], ...]
"""Rows by network or pair, method and what it searched on, each with the words that a figure has for it."""

FIVE: Wanted = (
    ("VGG16", "Base training", "", "VGG16 baseline"), ("VGG16", "APoZ", "", "APoZ"), ("VGG16", "INT8", "", "INT8"),
    ("VGG13->VGG8", "CRD", "", "CRD VGG13→VGG8"),
    ("PyramidNet with modifications", "ProxylessNAS", "CIFAR-100", "ProxylessNAS (CIFAR-100)"),
)  # fmt: skip  # a row each
"""The methods of the paper's Figure 2."""
CRD_PAIRS: Wanted = (
    ("VGG13->VGG8", "CRD", "", "CRD VGG13→VGG8"), ("ResNet56->ResNet20", "CRD", "", "CRD ResNet56→ResNet20"),
)  # fmt: skip  # a row each
DISTILLATIONS: Wanted = (("ResNet56->ResNet20", "KD", "", "KD"), ("ResNet56->ResNet20", "CRD", "", "CRD"))
INT8: Wanted = (("VGG16", "Base training", "", "VGG16 baseline"), ("VGG16", "INT8", "", "INT8 on VGG16"))

SOURCE = "Source: the paper's Tables 3 and 5, recomputed (training: P100, inference: TITAN V; no intervals printed)."


def figure_2a(rows: Sequence[PaperRow]) -> Figure | str:
    """G against MUI at tau 2 of five methods, its crossings marked."""
    cycles = chosen(rows, FIVE)
    return cycles if isinstance(cycles, str) else mui_figure(cycles, f"Figure 2a: G at τ = 2. {SOURCE}")


def figure_2b(rows: Sequence[PaperRow]) -> Figure | str:
    """G against tau at a billion inferences of the same five."""
    cycles = chosen(rows, FIVE)
    if isinstance(cycles, str):
        return cycles
    return tau_figure(cycles, f"Figure 2b: G at MUI = 1 billion. {SOURCE}", 1e9)


def figure_3a(rows: Sequence[PaperRow]) -> Figure | str:
    """G against MUI of CRD on those pairs that the paper's table holds."""
    left = "The paper's figure has further pairs; its table holds these two."
    return _part(rows, CRD_PAIRS, f"Figure 3a, in part: CRD by pair, G at τ = 2. {left}")


def figure_3b(rows: Sequence[PaperRow]) -> Figure | str:
    """G against MUI of those distillations of ResNet56 to ResNet20 that the paper's table holds."""
    left = "The paper's figure has every distillation method; its table holds KD and CRD."
    return _part(rows, DISTILLATIONS, f"Figure 3b, in part: distillation of ResNet56 to ResNet20, G at τ = 2. {left}")


def figure_3c(rows: Sequence[PaperRow]) -> Figure | str:
    """G against MUI of INT8 on VGG16, the only network whose INT8 the paper tabulates, beside its baseline."""
    left = "The paper's figure has further networks in INT8; its table holds VGG16 alone (its baseline is added here)."
    return _part(rows, INT8, f"Figure 3c, in part: INT8, G at τ = 2. {left}")


def figure_6(rows: Sequence[PaperRow]) -> Figure | str:
    """Figure 2a at tau 5 and 10."""
    cycles = chosen(rows, FIVE)
    return cycles if isinstance(cycles, str) else taus_figure(cycles, f"Figure 6: G at τ = 5 and 10. {SOURCE}")


def chosen(rows: Sequence[PaperRow], wanted: Wanted) -> dict[str, Cycle] | str:
    """What G needs of the wanted rows, by what a figure calls them; or why they cannot be shown."""
    by_key = {(row.model, row.method, row.search): row for row in rows}
    absent = [words for *key, words in wanted if tuple(key) not in by_key]
    if absent:
        return f"n/a: the paper's table given holds no row of {', '.join(absent)}"
    return {words: cycle_of(by_key[model, method, search]) for model, method, search, words in wanted}


def cycle_of(row: PaperRow) -> Cycle:
    """What G needs of a row of the paper; its half-widths are unknown."""
    return Cycle(*(Uncertain(value, math.nan) for value in (row.acc_pct, row.tec_wh, row.iec_wh)))


def _part(rows: Sequence[PaperRow], wanted: Wanted, caption: str) -> Figure | str:
    cycles = chosen(rows, wanted)
    return cycles if isinstance(cycles, str) else mui_figure(cycles, f"{caption} {SOURCE}")
