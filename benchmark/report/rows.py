"""Records to rows, one for each stage of each life: every number is computed here from runs and records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.plan.run_file import RunFile, RunStage
from benchmark.plan.stage import Phase, kind_of
from benchmark.plan.task import DeployPrecision
from benchmark.records.book import Book
from benchmark.records.record import MOST_JOULES, Record
from benchmark.report.columns import column, names
from benchmark.report.deployed import MAX_DROP_PCT, NOTHING, of_engine

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

J_PER_WH = 3600.0


@dataclass(frozen=True)
class LifeRow:
    """What a row is about: the columns that stages.csv and summary.csv share."""

    experiment: str = column("", "name of the experiment: what it is about, and the digest of its plan; seeds share it")
    method: str = column("", "the method, by the name of its file in configs/method")
    model: str = column("", "the network that is deployed")
    teacher: str = column("", "the network it learns from; empty without one")
    data: str = column("", "the data set")
    classes: int = column("", "classes of the data set")
    recipe: str = column("", "how the network is trained, by the name of its file in configs/recipe")
    scale: str = column("", "how much of data and recipe is used, by name")
    train_images: int = column("", "training images used")
    test_images: int = column("", "test images used")
    max_epochs: float = column("", "most epochs a training may take at this scale; empty without a limit")
    profile: str = column("", "fast or published: how training is executed")
    train_precision: str = column("", "number format of training")
    deploy_precision: str = column("", "number format asked of the engine")
    engine: str = column("", "the engine that inference runs on")
    engine_version: str = column("", "version of the engine's library")
    train_machine: str = column("", "machine whose training records count: device and power limit")
    infer_machine: str = column("", "machine whose inference records count")
    settings: str = column("", "the settings in which this life differs from others that share all of the above")


@dataclass(frozen=True)
class MeasuredRow(LifeRow):
    """What was found out: further columns that stages.csv and summary.csv share."""

    acc_pct: float = column("%", "top-1 accuracy on the test images: at the end of the stage; of the deployed engine")
    iec_wh: float = column("W.h", "IEC: energy of one inference (one image), best batch size, idle power included")
    iec_ci95_wh: float = column("W.h", "half-width of the 95 % interval of iec_wh")
    iec_dynamic_wh: float = column("W.h", "IEC without what the idle device draws in that time")
    single_stream_wh: float = column("W.h", "energy of one inference at batch size 1, each awaited")
    seconds_per_image: float = column("s", "time of one inference at the best batch size, that of iec_wh")
    latency_s: float = column("s", "time of one inference at batch size 1, each awaited")
    autocast: str = column("", "half precision of a training under autocast, and where it ran; empty without one")
    skipped_steps: float = column("", "training steps that the gradient scaler of fp16 skipped; empty without a scaler")
    params: float = column("", "parameters of the network")
    macs: float = column("", "multiply-accumulates of one inference (convolutions and linear layers)")
    executed_precision: str = column("", "what the engine computes in, in words: what was asked may not be what is run")
    layout: str = column("", "memory layout of the engine; of ONNX files, whose rules place the Q/DQ pairs: ort or trt")
    comparable_to_tensorrt: str = column("", "yes: TensorRT, the paper's engine; no: an engine that the paper has not")
    agreement_pct: float = column("%", "test images on which the engine names the class that its network names")
    warning: str = column("", "what the engine lost of its network's accuracy, where that is more than max_drop_pct")
    energy_source: str = column("", "the meter; estimate:... where there is none; several are joined by +")
    grade: str = column("", "how far to trust the energy: A to D a GPU's meter, R a CPU's, E an estimate, X none")


@dataclass(frozen=True)
class StageRow(MeasuredRow):
    """A row for each stage of each life that has a record, inference included. A number that is not known is empty."""

    seed: int = column("", "seed of the life")
    phase: str = column("", "base, compress, retrain, deploy or infer")
    stage: str = column("", "name of the stage's function")
    stage_version: int = column("", "version of the stage: raised when its arithmetic or its energy changes")
    key: str = column("", "name of the stage's result: equal stages have equal keys and run once")
    kind: str = column("", "TEC: counts into TEC; deploy: engine building, beside TEC; IEC: the inference measurement")
    shared_by: int = column("", "lives of this table that use this very record: its energy counts in each")
    first_mention: bool = column("", "true in one row of each record: sum over these rows and nothing counts twice")
    energy_wh: float = column("W.h", "energy of the stage, useful part; empty in an IEC row, whose numbers follow")
    energy_ci95_wh: float = column("W.h", "half-width of the 95 % interval of energy_wh")
    repeated_wh: float = column("W.h", "energy spent on the stage once more: lost epochs, lost artifacts")
    seconds: float = column("s", "duration of the stage's useful part; of the windows that count in an IEC row")
    mean_power_w: float = column("W", "mean power over these seconds")
    measuring_wh: float = column("W.h", "energy of the windows that iec_wh comes from; no part of any life cycle")
    protocol_wh: float = column(
        "W.h", "energy of all windows of the measurement: idle power, warm-up, batch sizes, too; no part of any life"
    )
    n_inferences: float = column("", "images in the windows of measuring_wh")
    batch_size: float = column("", "the best batch size: that of iec_wh")
    measured_engine: str = column("", "key of the engine that was measured: it stands for all of its shape")
    reason: str = column("", "why a number is missing, an attempt was lost, or a window does not count")
    gpu_wh: float = column("W.h", "energy of the GPU in the window")
    cpu_wh: float = column("W.h", "energy of the CPU package in the window")
    dram_wh: float = column("W.h", "energy of the memory in the window")
    polled_wh: float = column("W.h", "mean of the sampled power times time: what a polling script would book")
    polled_period_wh: float = column(
        "W.h", "what the paper's polling of nvidia-smi would book, which sees 0.1 s of each 0.18 s"
    )
    gpu_util_pct: float = column("%", "mean utilisation of the GPU")
    mem_util_pct: float = column("%", "mean utilisation of the GPU's memory interface")
    own_cores: float = column("", "processor cores that the run kept busy on average, its child processes included")
    others_cores: float = column(
        "", "cores that other processes of the computer kept busy meanwhile; in an IEC row in its most disturbed window"
    )
    train_flops: float = column(
        "FLOP", "of its passes through whole networks: two for each of macs, backward twice as many; tests left out"
    )
    peak_memory_bytes: float = column("bytes", "most memory that torch had allocated on the GPU in the stage")
    artifact_bytes: float = column("bytes", "size of the file that the stage handed on: a network or an engine")
    machine: str = column("", "machine that the stage ran on: device and power limit")
    device_name: str = column("", "the device, in words")
    device_uuid: str = column("", "the very board")
    driver: str = column("", "version of the GPU's driver")
    torch_version: str = column("", "version of torch")
    cuda_version: str = column("", "version of CUDA that torch was built for")
    attempts: int = column("", "tries that the stage took: above 1 after an interruption")
    commit: str = column("", "commit of the code")
    created: str = column("", "when the record was written (UTC)")


def stage_rows(book: Book, max_drop_pct: Mapping[DeployPrecision, float] = MAX_DROP_PCT) -> list[StageRow]:
    """A row per stage and life, inference included; stages that have not run yet have none.

    `max_drop_pct` says by precision how many points an engine may lose before its rows carry a warning.
    """
    settings = tell_apart(book.runs)
    rows = []
    for run, differing in zip(book.runs, settings, strict=True):
        engine = of_engine(book.engine(run), run.words.deploy_precision, max_drop_pct)
        for stage in run.stages:
            record = book.record(stage)
            if record is not None:
                row = _row(run, stage, record, differing, book.repeated_joules(record))
                own = engine if stage.phase is Phase.DEPLOY else {"train_flops": train_flops(book, run, stage)}
                rows.append(replace(row, **own))
        rows += [_unmeasured(run, phase, why, differing) for phase, why in run.unmeasured.items()]
        inference = book.inference(run)
        if inference is not None:
            rows.append(
                replace(_row(run, _as_stage(inference), inference, differing, inference.repeated_joules), **engine)
            )
    return _shared(rows)


def _unmeasured(run: RunFile, phase: Phase, why: str, settings: str) -> StageRow:
    """The row of a phase whose energy nobody measured: it has no record, no key and no number, but a reason."""
    nothing = {each.name: "" if each.type == "str" else math.nan for each in fields(StageRow)}
    known = {"seed": run.seed, "phase": str(phase), "stage": "unmeasured", "kind": kind_of(phase), "grade": "X"}
    alone = {"stage_version": 0, "shared_by": 0, "first_mention": False, "attempts": 0}
    return StageRow(**{**nothing, **about(run, settings), **known, **alone, "reason": why})


def train_flops(book: Book, run: RunFile, stage: RunStage) -> float:
    """FLOP of what a stage shows to networks, by the MACs that records counted; NaN where one of them is unknown.

    The first network is the stage's own; another (a teacher) is that of a stage it rests on. A search has none that
    could be counted.
    """
    if stage.passes is None:
        return math.nan
    above = [each for each in run.stages if each.key in stage.inputs.values() and each.passes]
    names = {each.passes[0].model: _macs(book, each) for each in above if each.passes}
    names |= {stage.passes[0].model: _macs(book, stage)} if stage.passes else {}
    return math.fsum(
        2 * names.get(each.model, math.nan) * each.images * each.times * (3 if each.trains else 1)
        for each in stage.passes
    )


def _macs(book: Book, stage: RunStage) -> float:
    record = book.record(stage)
    return math.nan if record is None else record.values.get("macs", math.nan)


def _as_stage(record: Record) -> RunStage:
    return RunStage(
        phase=Phase.INFER,
        kind="IEC",
        key=record.key,
        fn=record.fn,
        version=record.fn_version,
        inputs={},
        machine=record.machine,
    )


def _shared(rows: Sequence[StageRow]) -> list[StageRow]:
    """The rows, each knowing how many rest on its record and whether it is the first that does."""
    uses = Counter((row.machine, row.key) for row in rows)
    seen: set[tuple[str, str]] = set()
    found = []
    for row in rows:
        if not row.key:  # unmeasured: it rests on no record
            found.append(row)
            continue
        where = (row.machine, row.key)
        found.append(replace(row, shared_by=uses[where], first_mention=where not in seen))
        seen.add(where)
    return found


def _row(run: RunFile, stage: RunStage, record: Record, settings: str, repeated_joules: float) -> StageRow:
    measured = stage.kind == "IEC"
    spent, measuring = (math.nan, record.joules) if measured else (record.joules, math.nan)
    return StageRow(
        **about(run, settings),
        seed=run.seed,
        phase=str(stage.phase),
        stage=stage.name,
        stage_version=record.fn_version,
        key=record.key,
        kind=stage.kind,
        shared_by=1,
        first_mention=True,
        energy_wh=spent / J_PER_WH,
        energy_ci95_wh=math.nan if measured else record.ci95_joules / J_PER_WH,
        repeated_wh=repeated_joules / J_PER_WH,
        seconds=record.seconds,
        mean_power_w=record.joules / record.seconds if record.seconds else math.nan,
        measuring_wh=measuring / J_PER_WH,
        protocol_wh=_protocol_joules(record) / J_PER_WH if measured else math.nan,
        **_inference(record.values),
        measured_engine=str(record.details.get("engine_key", "")) if measured else "",
        acc_pct=record.values.get("acc_pct", math.nan),
        autocast=_autocast(record),
        skipped_steps=record.values.get("skipped_steps", math.nan),
        params=record.values.get("params", math.nan),
        macs=record.values.get("macs", math.nan),
        **NOTHING,
        energy_source=record.source,
        grade=record.grade,
        reason=record.reason,
        **_reading(record.reading),
        train_flops=math.nan,
        artifact_bytes=float(record.artifact_bytes) or math.nan,  # none, or a record of before sizes were kept
        machine=record.machine,
        **_provenance(record),
    )


def _protocol_joules(record: Record) -> float:
    """What the whole of a measurement spent; of one that does not say it, its windows."""
    spent = record.details.get("spent")
    joules = _number(spent.get("joules")) if isinstance(spent, Mapping) else math.nan
    return joules if 0 <= joules <= MOST_JOULES else record.joules


def about(run: RunFile, settings: str) -> dict[str, Any]:
    """The columns of `LifeRow`."""
    words = run.words.model_dump()
    words["max_epochs"] = math.nan if run.words.max_epochs is None else run.words.max_epochs
    machines = {"train_machine": run.train_machine, "infer_machine": run.infer_machine}
    return {"experiment": run.experiment, **words, **machines, "settings": settings}


def _autocast(record: Record) -> str:
    """What a record says of its training under autocast."""
    for holder in (record.details, record.details.get("history")):
        execution = holder.get("execution") if isinstance(holder, Mapping) else None
        if isinstance(execution, Mapping) and isinstance(execution.get("autocast"), str):
            return str(execution["autocast"])
    return ""


def _inference(values: Mapping[str, float]) -> dict[str, Any]:
    return {
        "iec_wh": values.get("iec_joules", math.nan) / J_PER_WH,
        "iec_ci95_wh": values.get("iec_ci95_joules", math.nan) / J_PER_WH,
        "iec_dynamic_wh": values.get("iec_dynamic_joules", math.nan) / J_PER_WH,
        "single_stream_wh": values.get("single_stream_joules", math.nan) / J_PER_WH,
        "seconds_per_image": values.get("seconds_per_image", math.nan),
        "latency_s": values.get("latency_s", math.nan),
        "n_inferences": values.get("n_inferences", math.nan),
        "batch_size": values.get("batch_size", math.nan),
    }


def _reading(reading: Mapping[str, Any]) -> dict[str, Any]:
    names = ("gpu", "cpu", "dram", "polled", "polled_period")
    joules = {f"{name}_wh": _number(reading.get(f"{name}_joules")) / J_PER_WH for name in names}
    cores = {name: _number(reading.get(name)) for name in CORES}
    known = {name: value if 0 <= value <= MOST_CORES else math.nan for name, value in cores.items()}
    return {**joules, **known, **{name: _number(reading.get(name)) for name in METERED}}


METERED = ("gpu_util_pct", "mem_util_pct", "peak_memory_bytes")
"""Columns that records hold by the same name in their reading."""
CORES = ("own_cores", "others_cores")
"""Such columns, too."""
MOST_CORES = 1e6
"""No computer has more."""


def _provenance(record: Record) -> dict[str, Any]:
    versions = record.provenance.get("versions", {})
    return {
        "device_name": record.device_name,
        "device_uuid": record.provenance.get("device_uuid", ""),
        "driver": record.provenance.get("driver", ""),
        "torch_version": versions.get("torch", ""),
        "cuda_version": versions.get("cuda", ""),
        "attempts": record.attempts,
        "commit": record.commit,
        "created": record.created,
    }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def frame(rows: Sequence[DataclassInstance], kind: type[DataclassInstance]) -> pd.DataFrame:
    """Rows of one kind as a table, with all its columns also where there is none."""
    return pd.DataFrame([astuple(row) for row in rows], columns=names(kind))


AFTER = " after "
"""What stands in a method's name between it and the one that it starts from: 'pruning/l1 after distillation/kd'."""


def short_method(method: str) -> str:
    """A method's name without its families, and that of the one it starts from: 'l1 after kd'."""
    return AFTER.join(part.rpartition("/")[2] for part in method.split(AFTER))


def tell_apart(runs: Sequence[RunFile]) -> list[str]:
    """For each run the settings, by name and value, in which its experiment differs from others that have its words; ''
    where none does.

    Versions of stages count as settings here (`version.train=2`): an older plan is another row. Plans that differ in
    nothing that has a name are told apart by their digests.
    """
    newest: dict[str, RunFile] = {}
    for run in sorted(runs, key=lambda run: run.created):
        newest[run.experiment] = run
    networks: dict[str, list[RunFile]] = {}
    alike: dict[tuple[Any, ...], list[RunFile]] = {}
    for run in newest.values():
        networks.setdefault(run.words.model, []).append(run)
        words = (*run.words.model_dump().values(), run.train_machine, run.infer_machine)
        alike.setdefault(words, []).append(run)
    # two networks of one name are told apart in every row, whatever the method
    unlike = {model: [name for name in _differing(own) if name.startswith("model.")] for model, own in networks.items()}
    said = {
        name: text for group in alike.values() for name, text in _apart(group, unlike[group[0].words.model]).items()
    }
    return [said[run.experiment] for run in runs]


def _differing(runs: Sequence[RunFile]) -> list[str]:
    """The settings in which some runs differ."""
    values = [_settings(run) for run in runs]
    names = dict.fromkeys(name for own in values for name in own)
    return [name for name in names if len({own.get(name) for own in values}) > 1]


def _apart(group: Sequence[RunFile], always: Sequence[str]) -> dict[str, str]:
    """By experiment, in what the runs of a group differ, and the settings that are `always` said."""
    values = {run.experiment: _settings(run) for run in group}
    differing = dict.fromkeys([*_differing(group), *always])
    said = {
        experiment: " ".join(f"{name}={own[name]}" for name in differing if name in own)
        for experiment, own in values.items()
    }
    uses = Counter(said.values())
    return {
        run.experiment: said[run.experiment]
        if uses[said[run.experiment]] == 1
        else " ".join(filter(None, (said[run.experiment], f"plan={run.plan[:8]}")))
        for run in group
    }


def _settings(run: RunFile) -> dict[str, str]:
    """Every setting by its shortest clear name, and the versions of the stages."""
    own = {name.removeprefix("method."): value for name, value in run.settings.items()}
    versions = {f"version.{stage.name}": str(stage.version) for stage in run.stages}
    return {**own, **versions}
