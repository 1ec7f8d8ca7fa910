"""Rows of stages to a row per experiment: TEC, IEC, accuracy, G with its interval, and ranks that show ties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmark.energy.judge.reading import is_of_cpu, worst
from benchmark.intervals import mean_ci95, share_ci95
from benchmark.plan.run_file import RunFile
from benchmark.records.book import Book
from benchmark.report.columns import column
from benchmark.report.greeness import TAU, Ranks, Uncertain, greeness, greeness_ci95, rank_ranges
from benchmark.report.rows import MeasuredRow, StageRow, about

RIVALS = (
    "data", "classes", "train_images", "test_images", "max_epochs", "profile", "train_precision", "train_machine",
    "infer_machine", "engine",
)  # fmt: skip  # a list of names reads best in rows
"""Rows that differ in one of these values are no rivals: they have no rank among each other. Recipes and their epochs
may differ (the study ranks 160, 240 and 600 epochs together), and so may the precision of the engine."""

GRADED_SHARE = 0.95
"""A row is as trustworthy as those stages that together hold this share of its TEC, and its inference."""


@dataclass(frozen=True)
class SummaryRow(MeasuredRow):
    """A row for each experiment: means over its complete seeds. One without a complete seed names what is missing."""

    n_seeds: int = column("", "complete seeds")
    acc_ci95_pct: float = column(
        "%", "half-width of the 95 % interval of acc_pct: over seeds; with one seed, what its test images leave open"
    )
    network_acc_pct: float = column("%", "top-1 accuracy of the network before its engine was built")
    tec_wh: float = column("W.h", "TEC: base training, compression or search, re-training; shared stages in full")
    tec_ci95_wh: float = column("W.h", "half-width of the 95 % interval of tec_wh: meter, and seeds where several")
    base_wh: float = column("W.h", "the part of TEC in phase base")
    compress_wh: float = column("W.h", "the part of TEC in phase compress")
    retrain_wh: float = column("W.h", "the part of TEC in phase retrain")
    tec_saved_pct: float = column(
        "%", "TEC saved against the baseline with the same model, recipe and rivals; negative where it costs more"
    )
    g_500m: float = column("percent^tau per W.h", "Greeness at half a billion inferences")
    g_500m_ci95: float = column("percent^tau per W.h", "half-width of the 95 % interval of g_500m")
    rank_500m: str = column("", "rank among rivals by g_500m; a range such as 1-3 is a tie")
    g_1b: float = column("percent^tau per W.h", "Greeness at a billion inferences")
    g_1b_ci95: float = column("percent^tau per W.h", "half-width of the 95 % interval of g_1b")
    rank_1b: str = column("", "rank among rivals by g_1b")
    break_even: str = column(
        "",
        "G against that baseline's: from (an MUI on), below (it), always, never, unclear; empty without a baseline",
    )
    break_even_mui: float = column("", "the number of inferences (MUI) of from and below")
    break_even_low: float = column("", "lower end of its 95 % interval; with one seed without the spread between seeds")
    break_even_high: float = column("", "upper end of its 95 % interval; inf where it may never come")
    baseline_seeds: float = column("", "complete seeds of that baseline; empty without one")
    tau: float = column("", "exponent of accuracy in G")
    acc_per_wh_500m: float = column(
        "percent per W.h", "accuracy per energy of the whole life at half a billion inferences: G at tau = 1"
    )
    train_seconds: float = column("s", "metered time of the stages of TEC, one after another; without pauses")
    train_flops: float = column(
        "FLOP", "of the passes of TEC's stages through whole networks; empty where one is unknown (a search)"
    )
    infer_flops: float = column("FLOP", "of one inference: two for each of macs")
    model_bytes: float = column("bytes", "size of the network's file, as stored before its engine was built")
    engine_bytes: float = column("bytes", "size of the engine's file")
    peak_memory_bytes: float = column(
        "bytes", "most memory that torch had allocated on the GPU in a stage of TEC; empty where one does not say it"
    )
    money_train: float = column("your currency", "of TEC: its kWh x PUE x price_kwh + its hours x price_device_hour")
    money_500m: float = column("your currency", "of TEC and half a billion inferences, in the same way")
    co2e_train_kg: float = column("kg", "CO2e of TEC: its kWh x PUE x the grid's g CO2e per kWh")
    co2e_500m_kg: float = column("kg", "CO2e of TEC and half a billion inferences")
    g_co2e_500m: float = column("percent^tau per kg", "G with CO2e in the place of energy: acc_pct^tau / co2e_500m_kg")
    footprint: str = column("", "prices, grid and PUE behind money and CO2e; empty where none was named")
    deploy_wh: float = column("W.h", "energy of building the engine; no part of TEC or G")
    spent_making_wh: float = column(
        "W.h", "really spent on TEC and engine: each record once, over all seeds, repeats too"
    )
    spent_measuring_wh: float = column("W.h", "energy of all windows of the measurements of inference, each once")
    others_pct: float = column(
        "%",
        "share of the computer's CPU time that other processes took in the stages of TEC, or in its measurement of "
        "inference where that is more: they raise what a CPU is said to have spent; empty on a GPU, or where unknown",
    )
    missing: str = column("", "what has no record yet, by seed")
    notes: str = column("", "what a reader must know, for instance that a chain mixes copies of one stage")


EMPTY = {each.name: "" if each.type == "str" else math.nan for each in fields(SummaryRow)}


def summarise(book: Book, stages: Sequence[StageRow], tau: float = TAU) -> list[SummaryRow]:
    """A row per experiment: the seeds of one plan under one name; an older plan is another experiment."""
    wanted: dict[str, list[RunFile]] = {}
    for run in book.runs:
        wanted.setdefault(run.experiment, []).append(run)
    own: dict[str, list[StageRow]] = {}
    for row in stages:
        own.setdefault(row.experiment, []).append(row)
    rows = [_experiment(book, group, own.get(group[0].experiment, []), tau) for group in wanted.values()]
    return ranked(with_savings(sorted(rows, key=lambda row: row.experiment)))


def _experiment(book: Book, group: list[RunFile], own: list[StageRow], tau: float) -> SummaryRow:
    first, missing, seeds = group[0], [], []
    for run in group:
        absent = book.missing(run)
        if absent:
            missing.append(f"seed {run.seed}: {', '.join(absent)}")
        else:
            network = book.network(run)
            acc_pct = math.nan if network is None else network.values.get("acc_pct", math.nan)
            size = math.nan if network is None else network.artifact_bytes or math.nan
            beside = {"network_acc_pct": acc_pct, "model_bytes": size}
            seeds.append({**_seed([row for row in own if row.seed == run.seed]), **beside})
    notes = dict.fromkeys(line for run in group for line in book.copies(run))
    notes |= dict.fromkeys(
        f"TEC is unknown, phase {phase}: {why}" for run in group for phase, why in run.unmeasured.items()
    )
    row = {
        **EMPTY,
        **about(first, own[0].settings if own else ""),
        **_engine(own),
        "autocast": _once_each(row.autocast for row in own if row.kind == "TEC"),
        "tau": tau,
        "n_seeds": len(seeds),
        "missing": "; ".join(missing),
        "notes": "; ".join(notes),
        "energy_source": "+".join(sorted({row.energy_source for row in own} - {""})),
        "grade": grade(own),
        **_spent(own),
        "others_pct": others_pct(own),
    }
    return SummaryRow(**{**row, **(_means(seeds, tau, first.words.test_images) if seeds else {})})


def _engine(own: Sequence[StageRow]) -> dict[str, Any]:
    """What the engines of all seeds say in words, each word once."""
    built = [row for row in own if row.kind == "deploy"]
    names = ("executed_precision", "layout", "comparable_to_tensorrt", "warning")
    return {name: _once_each(getattr(row, name) for row in built) for name in names}


def _once_each(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, words)))


def grade(rows: Sequence[StageRow]) -> str:
    """The worst grade of what G is made of: the inference, and those stages that together hold 95 % of TEC.

    A mask that takes a tenth of a second is too short for a good grade and matters to nobody; an unknown energy cannot
    be shown to be small, so it counts.
    """
    tec = sorted((row for row in rows if row.kind == "TEC"), key=lambda row: -_or(row.energy_wh, math.inf))
    total = math.fsum(_or(row.energy_wh, 0.0) for row in tec)
    held, counted = 0.0, [row.grade for row in rows if row.kind == "IEC"]
    for row in tec:
        if held >= GRADED_SHARE * total and not math.isnan(row.energy_wh):
            break
        counted.append(row.grade)
        held += _or(row.energy_wh, 0.0)
    return worst(counted)


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _spent(own: Sequence[StageRow]) -> dict[str, float]:
    """What was really spent, over all seeds: a record that serves several of them counts once."""
    once = {(row.machine, row.key): row for row in own if row.key}.values()
    return {
        "spent_making_wh": math.fsum(row.energy_wh + row.repeated_wh for row in once if row.kind != "IEC"),
        "spent_measuring_wh": math.fsum(row.protocol_wh for row in once if row.kind == "IEC"),
    }


DISTURBED_PCT = 10.0
"""Above this share of the computer's CPU time the work of others is worth a line."""
QUIET = "run again on a quiet machine, into another folder (paths.results=FOLDER)"
"""The remedy."""


def disturbance(rows: Sequence[SummaryRow]) -> list[str]:
    """A line on rows whose energy is a CPU's and beside which it did much other work; none where there are none."""
    disturbed = [row for row in rows if row.others_pct > DISTURBED_PCT]
    if not disturbed:
        return []
    many = f"{len(disturbed)} of these rows" if len(rows) > 1 else "this row"
    most = max(disturbed, key=lambda row: row.others_pct)
    settings = most.settings and f" ({most.settings})"
    name = f" (most beside {most.method}, {most.model}{settings})" if len(rows) > 1 else ""
    took = f"other programs took up to {most.others_pct:.0f} % of the computer's CPU time beside {many}{name}"
    raised = "which raises energies, at worst to several times what they are (others_pct in summary.csv, by stage in "
    return [f"{took}, {raised}stages.csv): {QUIET}"]


def others_pct(own: Sequence[StageRow]) -> float:
    """Percent of the CPU seconds of TEC, or of IEC where that is more, that other processes took, of the stages whose
    energy is a CPU's. NaN where that is not known of half of their time."""
    found = []
    for kind in ("TEC", "IEC"):
        rows = [row for row in own if row.kind == kind and is_of_cpu(row.energy_source)]
        known = [row for row in rows if not math.isnan(row.own_cores + row.others_cores)]
        others = math.fsum(row.others_cores * row.seconds for row in known)
        used = others + math.fsum(row.own_cores * row.seconds for row in known)
        seen_s, all_s = (math.fsum(row.seconds for row in some) for some in (known, rows))
        found += [100 * others / used] if used > 0 and seen_s >= 0.5 * all_s else []
    return max(found, default=math.nan)


def _seed(rows: list[StageRow]) -> dict[str, float]:
    """One complete life cycle in numbers."""
    tec, deploy, infer = ([row for row in rows if row.kind == kind] for kind in ("TEC", "deploy", "IEC"))
    built, measured = deploy[-1], infer[-1]
    phases = {phase: math.fsum(row.energy_wh for row in tec if row.phase == phase) for phase in _PARTS}
    return {
        "tec_wh": math.fsum(row.energy_wh for row in tec),
        "tec_ci95_wh": math.hypot(*(row.energy_ci95_wh for row in tec)),
        **{f"{phase}_wh": value for phase, value in phases.items()},
        "iec_wh": measured.iec_wh,
        "iec_ci95_wh": measured.iec_ci95_wh,
        "iec_dynamic_wh": measured.iec_dynamic_wh,
        "single_stream_wh": measured.single_stream_wh,
        "seconds_per_image": measured.seconds_per_image,
        "latency_s": measured.latency_s,
        "train_seconds": math.fsum(row.seconds for row in tec),
        "peak_memory_bytes": _most(row.peak_memory_bytes for row in tec),
        "engine_bytes": built.artifact_bytes,
        "train_flops": math.fsum(row.train_flops for row in tec),
        "infer_flops": 2 * built.macs,
        "deploy_wh": math.fsum(row.energy_wh for row in deploy),
        "skipped_steps": _sum_of_known(row.skipped_steps for row in tec),
        "params": built.params,
        "macs": built.macs,
        "acc_pct": built.acc_pct,
        "agreement_pct": built.agreement_pct,
    }


_PARTS = ("base", "compress", "retrain")


def _means(seeds: list[dict[str, float]], tau: float, test_images: int) -> dict[str, Any]:
    """Means over seeds. The interval of TEC: the meter's own, and over seeds where there are several, in quadrature."""
    row = {name: _mean(seed[name] for seed in seeds) for name in seeds[0]}
    tec = mean_ci95([seed["tec_wh"] for seed in seeds])
    if tec.n > 1:
        row["tec_ci95_wh"] = math.hypot(tec.half_width, row["tec_ci95_wh"])
    acc = mean_ci95([seed["acc_pct"] for seed in seeds])
    # one seed says nothing of the spread over seeds, which n_seeds = 1 says; but an accuracy on few images is not exact
    row["acc_ci95_pct"] = acc.half_width if acc.n > 1 else 100 * share_ci95(row["acc_pct"] / 100, test_images)
    accuracy = Uncertain(row["acc_pct"], row["acc_ci95_pct"])
    tec_wh, iec_wh = Uncertain(row["tec_wh"], row["tec_ci95_wh"]), Uncertain(row["iec_wh"], row["iec_ci95_wh"])
    if row["tec_wh"] == row["iec_wh"] == 0:  # no meter saw anything, so nothing can be divided by it
        return row | dict.fromkeys(("g_500m", "g_500m_ci95", "g_1b", "g_1b_ci95", "acc_per_wh_500m"), math.nan)
    row["acc_per_wh_500m"] = greeness(row["acc_pct"], row["tec_wh"], row["iec_wh"], 5e8, tau=1.0)
    for name, mui in (("g_500m", 5e8), ("g_1b", 1e9)):
        row[name] = greeness(row["acc_pct"], row["tec_wh"], row["iec_wh"], mui, tau)
        row[f"{name}_ci95"] = greeness_ci95(accuracy, tec_wh, iec_wh, mui, tau)
    return row


def _most(values: Iterable[float]) -> float:
    """The largest; NaN where one is unknown, for it may be that one."""
    listed = list(values)
    return math.nan if any(map(math.isnan, listed)) else max(listed, default=math.nan)


def _sum_of_known(values: Iterable[float]) -> float:
    """The sum of the values that are there; NaN where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) if known else math.nan


def with_savings(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows, each with what it saves of the TEC of its baseline."""
    found = []
    for row in rows:
        baseline = baseline_of(row, rows)
        saved = math.nan if baseline is None or baseline is row else 100 * (1 - row.tec_wh / baseline.tec_wh)
        found.append(replace(row, tec_saved_pct=saved))
    return found


def baseline_of(row: SummaryRow, rows: Sequence[SummaryRow]) -> SummaryRow | None:
    """The plain training that a row is compared with: the same model, recipe and rivals, no autocast, nothing done
    afterwards. None where there is none, or several of other TEC (other settings) between which nothing decides."""
    plain = [
        other
        for other in rows
        if other.method == "baseline"
        and other.tec_wh > 0
        and not other.autocast
        and other.tec_wh == other.base_wh
        and kind_of_rivals(other) == kind_of_rivals(row)
        and (other.model, other.recipe) == (row.model, row.recipe)
    ]
    if row in plain:
        return row
    return plain[0] if len({other.tec_wh for other in plain}) == 1 else None


def ranked(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows with their ranks by G among rivals."""
    small = ranks_by(rows, [Uncertain(row.g_500m, row.g_500m_ci95) for row in rows])
    large = ranks_by(rows, [Uncertain(row.g_1b, row.g_1b_ci95) for row in rows])
    return [replace(row, rank_500m=one, rank_1b=other) for row, one, other in zip(rows, small, large, strict=True)]


def kind_of_rivals(row: SummaryRow) -> tuple[str, ...]:
    """What rows that are ranked among each other share."""
    return tuple(str(getattr(row, name)) for name in RIVALS)


def ranks_by(rows: Sequence[SummaryRow], g: Sequence[Uncertain]) -> list[str]:
    """The rank of each row among its rivals by a G of each: '1-3' is a tie of three that the intervals do not tell
    apart, '' where G is unknown."""
    rivals: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        rivals.setdefault(kind_of_rivals(row), []).append(number)
    found = [""] * len(rows)
    for own in rivals.values():
        ranges = rank_ranges([g[number].value for number in own], [g[number].half_width for number in own])
        for number, ranks in zip(own, ranges, strict=True):
            found[number] = _words(ranks)
    return found


def _words(ranks: Ranks | None) -> str:
    if ranks is None:
        return ""
    return str(ranks.best) if ranks.best == ranks.worst else f"{ranks.best}-{ranks.worst}"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    mean = math.fsum(listed) / len(listed)
    return math.nan if math.isnan(mean) else mean  # the one NaN: rows that say the same must be equal
