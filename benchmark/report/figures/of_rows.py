"""The paper's figures 2, 3 and 6 from rows of our own, a group of rivals each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmark.report.crossovers import Cycle
from benchmark.report.figures.g_curves import g_of, mui_figure, tau_figure, taus_figure
from benchmark.report.figures.groups import BY_MUI, MOST_CURVES, Group, Named, family


def figure_2a(group: Group) -> Figure | str:
    """G against MUI at tau 2 of the best row of each family, with bands and crossings."""
    chosen = best_of_families(group)
    told = f"G at τ = 2 of the best row of each family at 1 billion inferences, of {len(group.rows)} rows; bands: 95 %."
    return mui_figure(_cycles(chosen), f"{told} {group.source}")


def figure_2b(group: Group) -> Figure | str:
    """G against tau at a billion inferences of the best row of each family."""
    told = "G at MUI = 1 billion of the best row of each family there; bands: 95 %."
    return tau_figure(_cycles(best_of_families(group)), f"{told} {group.source}", BY_MUI)


def figure_3a(group: Group) -> Figure | str:
    """G against MUI of one distillation method on its pairs: that which was run on most, CRD before others."""
    own = [each for each in group.rows if family(each.row) == "distillation"]
    if not own:
        return "n/a: no row of a distillation has a complete seed"
    pairs = Counter(each.row.method for each in own)
    method = max(pairs, key=lambda name: (pairs[name], name == "distillation/crd", name))
    return _of(group, [each for each in own if each.row.method == method], f"{method} by pair")


def figure_3b(group: Group) -> Figure | str:
    """G against MUI of all distillation methods on that pair on which most were run, beside the student's baseline."""
    own = [each for each in group.rows if family(each.row) == "distillation"]
    if not own:
        return "n/a: no row of a distillation has a complete seed"
    methods = Counter((each.row.teacher, each.row.model) for each in own)
    teacher, model = max(methods, key=lambda pair: (methods[pair], pair))
    chosen = [each for each in own if (each.row.teacher, each.row.model) == (teacher, model)]
    return _of(group, chosen, f"distillation of {teacher} to {model}", model)


def figure_3c(group: Group) -> Figure | str:
    """G against MUI of networks whose engine computes in INT8."""
    own = [each for each in group.rows if each.row.deploy_precision == "int8"]
    return _of(group, own, "networks in INT8") if own else "n/a: no row of an INT8 engine has a complete seed"


def figure_3d(group: Group) -> Figure | str:
    """G against MUI of the pruners on that network on which most were run, beside its baseline."""
    own = [each for each in group.rows if family(each.row) == "pruning"]
    if not own:
        return "n/a: no row of a pruner has a complete seed"
    networks = Counter(each.row.model for each in own)
    model = max(networks, key=lambda name: (networks[name], name))
    return _of(group, [each for each in own if each.row.model == model], f"pruning of {model}", model)


def figure_6(group: Group) -> Figure | str:
    """Figure 2a at tau 5 and 10."""
    told = "G at τ = 5 and 10 of the best row of each family (at τ = 2, MUI 1 billion); bands: 95 %; dots: crossings."
    return taus_figure(_cycles(best_of_families(group)), f"{told} {group.source}")


def best_of_families(group: Group) -> list[Named]:
    """The row with the highest G at a billion inferences of each family, the baseline first, then by G."""
    best: dict[str, Named] = {}
    for each in sorted(group.rows, key=_g, reverse=True):
        best.setdefault(family(each.row), each)
    return sorted(best.values(), key=lambda each: (family(each.row) != "baseline", -_g(each)))[:MOST_CURVES]


def _of(group: Group, chosen: Sequence[Named], what: str, model: str = "") -> Figure:
    """A figure of chosen rows (the best, where they are too many), the baseline of a model first where there is one."""
    base = [each for each in group.rows if model and (each.row.method, each.row.model) == ("baseline", model)][:1]
    kept = sorted(chosen, key=_g, reverse=True)[: MOST_CURVES - len(base)]
    some = f", the best {len(kept)} of {len(chosen)} at 1 billion inferences" if len(kept) < len(chosen) else ""
    return mui_figure(_cycles([*base, *kept]), f"G at τ = 2: {what}{some}; bands: 95 %. {group.source}")


def _cycles(rows: Sequence[Named]) -> dict[str, Cycle]:
    return {each.name: each.cycle for each in rows}


def _g(each: Named) -> float:
    return g_of(each.cycle, BY_MUI)
