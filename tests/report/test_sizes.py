"""Times, sizes and accuracy per energy of a row, from records made by hand; and words of a report are in no key."""

from __future__ import annotations

import math

import pytest

from benchmark.intervals import share_ci95
from benchmark.plan.config import compose, parse
from benchmark.plan.life import lives
from benchmark.plan.run_file import RunFile
from benchmark.plan.stage import Phase
from benchmark.records.book import Book
from benchmark.records.record import Record
from benchmark.report.rows import stage_rows, train_flops
from benchmark.report.summary import SummaryRow, summarise
from tests.harness.helpers import CPU, HERE

PRUNED = ("method=pruning/l1", "scale=smoke", "data=synthetic", "hardware=cpu")


def planned(*words: str) -> list[RunFile]:
    experiment, _ = parse(compose([*PRUNED, *words]), CPU)
    return [life.run_file("2026-11-27T00:00:00+00:00") for life in lives(experiment, HERE)]


def record(run: RunFile, number: int, **values) -> Record:
    """The record of a stage of a run: 3600 J in 100 s, and a file of 1000 bytes more than the one before."""
    stage = run.stages[number]
    plain = {
        "key": stage.key, "fn": stage.fn, "fn_version": stage.version, "params": {}, "inputs": stage.inputs,
        "artifact_bytes": 1000 * (number + 1), "joules": 3600.0, "ci95_joules": 0.0, "repeated_joules": 0.0,
        "seconds": 100.0, "source": "nvml:counter", "grade": "A", "reason": "", "details": {},
        "values": {"acc_pct": 80.0, "params": 9.0, "macs": 50.0}, "provenance": {}, "device_name": "a board",
        "reading": {"peak_memory_bytes": 10.0 * (number + 1)}, "machine": stage.machine, "commit": "c", "created": "",
        "attempts": 1,
    }  # fmt: skip  # one value a line would hide the record
    return Record(**(plain | values))


def book(runs: list[RunFile], **changes) -> Book:
    """Every record of some runs; changes are those of the first stage of all."""
    found = Book(runs=runs)
    for run in runs:
        for number, stage in enumerate(run.stages):
            own = changes if number == 0 else {}
            if stage.phase is Phase.DEPLOY:
                own = {"details": {"signature": "s"}}
            found.firsts[stage.machine, stage.key] = record(run, number, **own)
        measured = {"iec_joules": 3.6e-6, "iec_ci95_joules": 0.0, "seconds_per_image": 2e-5, "latency_s": 3e-4}
        words = {"measurement": run.measurement, "engine_version": run.words.engine_version}
        of_engine = record(run, -1, key="m", values=measured, details=words, artifact_bytes=0, group="g")
        found.measured[run.infer_machine, "s"] = [of_engine]
    return found


def summary(found: Book) -> SummaryRow:
    (row,) = summarise(found, stage_rows(found))
    return row


def test_the_flops_of_a_distillation_hold_its_teachers_answers():
    (run,) = planned("method=distillation/kd", "pair=vgg13__vgg8")
    assert [stage.name for stage in run.stages] == ["train", "distil", "build_engine"]
    row = summary(book([run], values={"acc_pct": 80.0, "macs": 1000.0}))
    teacher, student = 2 * 1000 * 256, 2 * 50 * 256
    assert row.train_flops == 3 * teacher + 3 * student + teacher


def test_flops_are_unknown_where_a_network_was_not_counted_or_a_file_does_not_say():
    (search,) = planned("method=nas/zero_cost")
    counted = book([search], values={"score": 1.0})
    assert math.isnan(summary(counted).train_flops)
    assert stage_rows(counted)[1].train_flops == 2 * 50 * 3 * 256, "the training of what was found is known"
    (taught,) = planned("method=distillation/kd", "pair=vgg13__vgg8")
    alone = taught.stages[1].model_copy(update={"inputs": {}})  # nothing it rests on tells the size of its teacher
    assert math.isnan(train_flops(book([taught]), taught, alone))
    (run,) = planned()
    old = run.model_copy(update={"stages": tuple(each.model_copy(update={"passes": None}) for each in run.stages)})
    assert math.isnan(summary(book([old])).train_flops)


def test_the_accuracy_of_one_seed_is_as_sure_as_its_test_images_make_it():
    from benchmark.intervals import mean_ci95

    (run,) = planned()
    (row,) = (summary(book([run])),)
    images = run.words.test_images
    assert images == 200
    assert row.acc_ci95_pct == pytest.approx(100 * share_ci95(0.8, 200))
    seeds = planned("seeds=2")
    both = book(seeds)
    for own, told in zip(seeds, (80.0, 82.0), strict=True):
        for number, stage in enumerate(own.stages):
            details = {"signature": "s"} if stage.phase is Phase.DEPLOY else {}
            both.firsts[stage.machine, stage.key] = record(
                own, number, values={"acc_pct": told, "macs": 50.0}, details=details
            )
    assert summary(both).acc_ci95_pct == mean_ci95([80.0, 82.0]).half_width, "seeds tell more than images"


@pytest.mark.parametrize(
    ("share", "count", "half"),
    [
        (0.5, 100, 0.5962 - 0.5),
        (0.02, 200, 0.0503 - 0.02),
        (0.0, 200, 0.01885),
        (1.0, 200, 0.01885),
        (0.73, 10_000, 0.0088),
    ],
)
def test_the_interval_of_a_share_is_wilsons(share, count, half):
    """The longer arm of the textbook's bounds: (0.4038, 0.5962) for 50 of 100, (0.0078, 0.0503) for 4 of 200, and
    z^2 / (n + z^2) for 0 of 200."""
    assert share_ci95(share, count) == pytest.approx(half, abs=1e-4)


def test_of_no_images_nothing_is_known():
    assert math.isnan(share_ci95(0.5, 0))
    assert math.isnan(share_ci95(math.nan, 100))


def test_times_and_sizes_of_a_row_by_hand():
    (run,) = planned()
    tec = [stage for stage in run.stages if stage.kind == "TEC"]
    assert len(tec) > 1
    row = summary(book([run]))
    assert row.tec_wh == len(tec)  # 3600 J are 1 W.h
    assert row.train_seconds == 100 * len(tec)
    assert row.model_bytes == 1000 * len(tec), "the network that is deployed is the last one of TEC"
    assert row.engine_bytes == 1000 * (len(tec) + 1)
    assert row.peak_memory_bytes == 10 * len(tec), "of the stages of TEC"
    assert row.infer_flops == 100
    # 1 epoch of 256 images in the base training, l1 looks at no image, and 1 epoch of fine-tuning
    assert row.train_flops == 2 * 50 * 3 * (256 + 256)
    assert (row.seconds_per_image, row.latency_s) == (2e-5, 3e-4)
    # 1e-9 W.h an inference: half a W.h for half a billion
    assert row.acc_per_wh_500m == pytest.approx(80 / (len(tec) + 0.5))
    assert row.g_500m == pytest.approx(6400 / (len(tec) + 0.5))
    assert row.footprint == "", "nobody named a price or a grid"
    assert math.isnan(row.money_train)
    assert math.isnan(row.co2e_500m_kg)


def test_what_one_stage_does_not_say_is_not_known_of_all():
    (run,) = planned()
    assert math.isnan(summary(book([run], reading={})).peak_memory_bytes)
    row = summary(book([run], joules=math.nan, reason="the board was lost"))
    assert math.isnan(row.acc_per_wh_500m)
    assert row.train_seconds > 0
    stages = stage_rows(book([run], artifact_bytes=0))
    assert math.isnan(stages[0].artifact_bytes), "0 stands for none, or for a record of before sizes were kept"
    assert [row.artifact_bytes for row in stages[1:-1]] == [2000.0 + 1000 * number for number in range(len(stages) - 2)]


def test_rows_give_means_over_seeds():
    runs = planned("seeds=2")
    found = book(runs)
    first = runs[1].stages[0]
    found.firsts[first.machine, first.key] = record(runs[1], 0, seconds=300.0)
    assert summary(found).train_seconds == summary(book(planned())).train_seconds + 100


def test_words_of_a_report_are_in_no_key_no_plan_and_no_run_file():
    said = ("price_kwh=0.3", "price_device_hour=2", "country=DEU", "grid_g_per_kwh=300", "pue=1.3", "mui=1e7,5e8")
    assert planned(*said) == planned()
    assert planned("recipe.lr=0.03") != planned()
