"""A study as a whole: which experiments it has, in which order they run, what it says beforehand, and where it ends."""

from __future__ import annotations

import math
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from benchmark.__main__ import main
from benchmark.energy import find_device
from benchmark.plan import study
from benchmark.plan.config import ConfigError, compose, parse
from benchmark.plan.folders import names
from benchmark.plan.quick import compose_all
from benchmark.plan.request import request_of
from benchmark.plan.stage import Phase, Stage
from benchmark.plan.study import expand
from benchmark.records.book import Book
from benchmark.report.rows import stage_rows
from benchmark.report.total import lines, totals
from benchmark.run.agenda import Agenda, MeasureJob, StageJob, cheapest_first
from benchmark.run.costs import H100, Machine, modelled, of_cpu, sizes
from benchmark.run.forecast import Forecaster, forecaster
from benchmark.run.whole import Whole
from benchmark.run.worker import StageError
from methods.baseline import Training
from tests.harness.helpers import CPU, lives_of, tiny_experiment, work_all
from tests.harness.test_runner import Lab


def jobs_of(name: str, *extra: str) -> list[list[str]]:
    return [job for block in expand(name, extra) for job in block.jobs]


def method_of(job: list[str]) -> str:
    return next(word.partition("=")[2] for word in job if word.startswith("method="))


# --- which experiments -----------------------------------------------------------------------------------------------


def test_the_study_has_its_216_sets_by_family():
    jobs = jobs_of("full")
    assert len(jobs) == 216 == len(set(map(tuple, jobs)))
    families = Counter(method_of(job).partition("/")[0] for job in jobs)
    assert families == {"distillation": 163, "pruning": 30, "quantization": 14, "baseline": 5, "nas": 4}
    (gone,) = [block for block in expand("full") if block.unavailable]
    assert gone.jobs == [["teacher_seed=0", "method=distillation/fsp", "pair=wrn_40_2__wrn_40_1"]]


def test_the_rows_of_the_papers_tables():
    jobs = jobs_of("table3")
    assert len(jobs) == 19
    assert Counter(method_of(job).partition("/")[0] for job in jobs) == {
        "baseline": 3, "quantization": 2, "pruning": 6, "distillation": 4, "nas": 4,
    }  # fmt: skip


def test_one_smoke_life_of_every_method():
    worked = {method_of(job) for job in jobs_of("smoke_all")}
    sizes_of_others = {
        "nas/darts", "nas/darts_short", "nas/proxylessnas", "nas/proxylessnas_energy", "nas/proxyless_tree",
        "nas/darts_genotype", "nas/proxyless_published",
    }  # fmt: skip
    assert worked | sizes_of_others == set(names("method"))


def test_what_needs_a_gpu_is_not_for_a_cpu(capsys, tmp_path):
    for name in ("batch_size", "sampling", "gpu"):
        (block,) = expand(f"sensitivity/{name}")
        assert block.not_on("cuda") == ""
        assert block.not_on("cpu").startswith("needs a GPU: ")
    assert main(["study", "experiment=sensitivity/gpu", "hardware=cpu", f"paths.results={tmp_path}/r"]) == 0
    said = capsys.readouterr().err
    assert "n/a: " in said
    assert "needs a GPU" in said
    assert not (tmp_path / "r").exists()


def test_only_keeps_the_jobs_that_every_pattern_fits():
    found = [job for block in expand("full", [], ["method=pruning/*", "model=nni/vgg*"]) for job in block.jobs]
    assert len(found) == 12
    with pytest.raises(ConfigError, match=r"only=method=prunning/\*: no experiment of full has that; did you mean"):
        expand("full", [], ["method=prunning/*"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- {sweep: {model: []}}", r"model sweeps over \[\]"),
        ("- {sweep: {model: nni/vgg16}}", "model sweeps over 'nni/vgg16'"),
        ("- {overrides: [seed=1], needs: tpu, because: x}", "needs: gpu"),
        ("- {overrides: [seed=1], needs: gpu}", "because"),
    ],
)
def test_a_study_that_says_nothing_is_refused(tmp_path, monkeypatch, text, why):
    (tmp_path / "mine.yaml").write_text(text + "\n")
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=why):
        expand("mine")


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=full", "dry_run=true", "only=method=nas/*", "max_wh=5", "max_hours=2", "seed=3"],
        ["--experiment=full", "--dry-run", "--only", "method=nas/*", "--max-wh", "5", "--max-hours=2", "seed=3"],
    ],
)
def test_both_spellings_of_a_request(words):
    asked = request_of(words)
    assert asked.experiment == "full"
    assert asked.dry_run
    assert asked.only == ("method=nas/*",)
    assert (asked.max_wh, asked.max_hours, asked.words) == (5, 2, ("seed=3",))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "exactly one experiment=NAME"),
        (["experiment=full", "experiment=nas"], "given twice"),
        (["experiment=full", "max_wh=0"], "greater than 0"),
        (["experiment=full", "max_hours=soon"], "max_hours: .*number"),
        (["experiment=full", "dry_run=perhaps"], "dry_run: .*boolean"),
        (["experiment=full", "--dryrun"], "unknown flag --dryrun; did you mean --dry-run"),
        (["experiment=full", "--max-wh"], "needs a value"),
    ],
)
def test_a_request_that_cannot_be_meant(words, why):
    with pytest.raises(ConfigError, match=why):
        request_of(words)


# --- many compositions -----------------------------------------------------------------------------------------------


def same(jobs: list[list[str]]) -> list[list[str]]:
    """The jobs whose quick composition parses to another experiment than Hydra's."""
    quick = compose_all(jobs)
    return [job for job, found in zip(jobs, quick, strict=True) if parse(found, CPU) != parse(compose(job), CPU)]


def test_many_compositions_are_those_of_hydra():
    special = [
        ["method=pruning/l1", "start=distillation/kd", "pair=vgg13__vgg8", "scale=small"],
        ["method=distillation/ft", "pair=vgg13__vgg8", "scale=smoke", "method.term.settings.rate=0.25"],
        ["method=nas/zero_cost", "method.size=xs", "recipe.epochs=3"],
        ["method=distillation/kd", "pair=vgg13__vgg8", "recipe=check", "+method.term={}"],
        ["data=cifar10", "data.classes=10", "hardware=cpu", "inference.batch_sizes=[1,2]", "paths.results='a b'"],
    ]
    assert same(special) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "smoke_all", "table3", "quick", "nas", "pruning_settings"])
def test_all_of_a_study_is_composed_as_by_hydra(name):
    assert same(jobs_of(name, "hardware=cpu")) == []


def test_a_wrong_word_among_many_is_told_as_for_one():
    jobs = [[f"seed={number}"] for number in range(5)]
    for wrong in ("method.nothing=1", "model=nni/vgg15", "seed=[", "recipe.epochs={a: 1}"):
        try:
            alone = str(compose(["seed=1", wrong]))
        except ConfigError as error:
            alone = str(error)
        try:
            many = str(compose_all([*jobs, ["seed=1", wrong]])[-1])
        except ConfigError as error:
            many = str(error)
        assert OmegaConf is not None
        assert many == alone


# --- forecasts -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_of_sizes_is_of_these_networks():
    from scripts.make_sizes import models, size_of

    found = {model.name: size_of(model, given) for model, given in models()}
    assert found == sizes()


def test_the_table_of_sizes_names_every_network():
    assert {f"{name}" for name in names("model")} < set(sizes())


def test_the_model_counts_arithmetic_or_kernels_whichever_takes_longer(tmp_path):
    (life,) = lives_of(tiny_experiment(tmp_path), find_device("cpu"), Lab(tmp_path).store)
    assert math.isnan(modelled(life.plan.network, H100).seconds), "a network of unknown size"
    task = life.task.model_copy(update={"model": life.task.model.model_copy(update={"name": "repdistiller/resnet8"})})
    stage = life.plan.network.__class__(
        life.plan.network.fn, life.plan.network.params.model_copy(update={"task": task})
    )
    macs, modules = sizes()["repdistiller/resnet8"]
    slow = Machine("slow", 1e9, 0.0, 1, 1, 10, 30)
    steps = 2 * 64 / 32
    cost = modelled(stage, slow)
    assert cost.seconds == pytest.approx(steps * 6 * macs * 32 / 1e9)
    assert cost.joules == pytest.approx(cost.seconds * 30)
    waiting = modelled(stage, Machine("waits", 1e30, 0.5, 2, 1, 10, 30))
    assert waiting.seconds == pytest.approx(steps * modules * 2 * 0.5)
    assert waiting.joules == pytest.approx(waiting.seconds * 10)


@pytest.mark.slow
def test_every_stage_of_the_study_has_a_forecast(tmp_path):
    configs = compose_all(jobs_of("smoke_all", "hardware=cpu"))
    device = find_device("cpu")
    for config in configs:
        parsed, _ = parse(config, CPU)
        for life in lives_of(parsed, device, Lab(tmp_path).store):
            unknown = [stage.fn for _, stage in life.steps() if math.isnan(modelled(stage, of_cpu(2)).seconds)]
            assert unknown == [], parsed.method["name"]


def test_records_come_before_the_model_and_correct_it(tmp_path):
    lab = Lab(tmp_path)
    recorded = tiny_experiment(tmp_path, model={"name": "repdistiller/resnet8", "builder": "tests.tiny:tiny"})
    lab.run(recorded)
    (life,) = lives_of(recorded, lab.device, lab.store)
    longer = tiny_experiment(
        tmp_path,
        model={"name": "repdistiller/resnet8", "builder": "tests.tiny:tiny"},
        recipe={"name": "t", "epochs": 200, "batch_size": 32, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3},
    )
    (other,) = lives_of(longer, lab.device, lab.store)
    record = lab.store.record(life.machine(Phase.BASE), life.key(life.plan.network))
    told = forecaster(lab.store, [life], of_cpu(1))
    seeded = told.of(life.plan.network, life.machine(Phase.BASE))
    assert (seeded.by, seeded.seconds) == ("records", record.seconds)
    scaled = told.of(other.plan.network, life.machine(Phase.BASE))
    assert scaled.by == "model"
    assert scaled.seconds == pytest.approx(100 * record.seconds), "two epochs took that long"
    assert scaled.joules == pytest.approx(100 * record.joules)


# --- order -----------------------------------------------------------------------------------------------------------


def three_lives(root):
    """Two seeds of one tiny network, and a third life of four epochs."""
    lab = Lab(root)
    recipe = {"name": "t", "epochs": 4, "batch_size": 32, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    wanted = [tiny_experiment(root), tiny_experiment(root, seed=1), tiny_experiment(root, recipe=recipe)]
    return lab, [life for each in wanted for life in lives_of(each, lab.device, lab.store)]


def test_the_cheapest_life_comes_first_given_what_was_made(tmp_path):
    _, (one, two, three) = three_lives(tmp_path)
    cost = {one.key(one.plan.network): 9.0, two.key(two.plan.network): 5.0, three.key(three.plan.network): 1.0}
    ordered = cheapest_first([one, two, three], lambda life, phase, stage: cost.get(life.key(stage), 0.0))
    assert ordered == [three, two, one]
    unknown = cheapest_first([one, two, three], lambda life, phase, stage: math.nan)
    assert unknown == [one, two, three], "what is not known stays in the order it was given in"


def test_a_life_is_brought_to_its_end_before_the_next_begins(tmp_path):
    lab, lives = three_lives(tmp_path)
    agenda = Agenda(lab.store, [lives])
    first, second = agenda.take(), agenda.take()
    assert isinstance(first, StageJob)
    assert first.life is lives[0]
    assert second.life is lives[1], "the first life waits for its stage, so another begins"
    agenda.done(first)
    third = agenda.take()
    assert (third.life, third.phase) == (lives[0], Phase.DEPLOY)
    agenda.again(third)
    assert agenda.take() == third, "its worker was lost, so it is there to be taken"


def test_what_rests_on_a_failed_stage_is_not_tried(tmp_path):
    lab, (one, two, _) = three_lives(tmp_path)
    agenda = Agenda(lab.store, [[one], [one, two]])
    job = agenda.take()
    agenda.failed(job, "it fell")
    rest = agenda.take()
    assert rest.life is two
    assert agenda.failures == ["it fell"], "told once, though two lives rest on it"


def test_a_stage_of_another_process_is_left_alone_for_a_while(tmp_path, monkeypatch):
    lab, lives = three_lives(tmp_path)
    agenda = Agenda(lab.store, [lives])
    busy = agenda.take()
    agenda.busy(busy)
    assert agenda.take().life is lives[1]
    monkeypatch.setattr("benchmark.run.agenda.time.monotonic", lambda: 1e9)
    assert agenda.take().key == busy.key


def test_an_agenda_that_is_stopped_measures_what_is_finished(tmp_path, monkeypatch):
    lab, lives = three_lives(tmp_path)
    work_all(tmp_path, lab.device, lives[:1])
    agenda = Agenda(lab.store, [lives], again=True)
    for job in list(agenda.keys().values()):
        if job.life is lives[0]:
            agenda.done(job)
    agenda.stop()
    job = agenda.take()
    assert isinstance(job, MeasureJob)
    assert [pending.life for pending in job.group.values()] == lives[:1]
    assert agenda.left == lives[1:]
    agenda.again(job)  # its worker was lost
    assert not agenda.finished
    again = agenda.take()
    assert again == job
    agenda.busy(again, list(again.group))  # another process measures it: looked at again in a while
    assert agenda.take() is None
    assert not agenda.finished
    monkeypatch.setattr("benchmark.run.agenda.time.monotonic", lambda: 1e9)
    job = agenda.take()
    agenda.done(job)
    assert agenda.take() is None
    assert agenda.finished


# --- budgets, progress, totals ---------------------------------------------------------------------------------------


class Costs:
    """A forecaster of fixed costs."""

    def __init__(self, joules: float, seconds: float) -> None:
        from benchmark.run.forecast import Forecast

        self.found = Forecast(joules, seconds, math.nan, "model")

    def of(self, stage, machine):
        return self.found

    def learn(self, stage, joules, seconds) -> None: ...


def test_a_budget_counts_what_was_repeated_and_lets_a_finished_life_be_measured():
    whole = Whole(Costs(7200.0, 7200.0), lambda line: None, max_wh=1.0, max_hours=1.0)
    job = StageJob(None, None, None, "key")
    whole.end(job, SimpleNamespace(joules=10.0, repeated_joules=5.0, seconds=1.0))
    assert whole.spent_joules == 15.0
    assert whole.over(MeasureJob({})) == "", "what the life cost would be wasted otherwise"


@pytest.mark.parametrize(("limits", "why"), [({"max_wh": 1.0}, "max_wh=1"), ({"max_hours": 1.0}, "max_hours=1")])
def test_no_stage_begins_that_would_go_beyond_the_budget(tmp_path, limits, why):
    lab, lives = three_lives(tmp_path)
    beyond = Whole(Costs(joules=2 * 3600, seconds=2 * 3600), lab.said.append, **limits)
    from benchmark.run.schedule import work
    from benchmark.run.workbench import Site
    from benchmark.run.worker import Worker

    said = work(Worker(Site(lab.device, lab.store, tmp_path), lab.said.append), [lives], whole=beyond)
    assert said.startswith(why)
    assert said.endswith("3 experiment(s) are left for the next run")
    assert lab.store.record_paths() == []
    within = Whole(Costs(joules=1, seconds=1), lab.said.append, **limits)
    assert work(Worker(Site(lab.device, lab.store, tmp_path), lab.said.append), [lives], whole=within) == ""
    assert within.spent_joules > 0
    progress = [line for line in lab.said if line.startswith("study: ")]
    assert progress[0].startswith("study: 0 of 6 stages, 0 W.h, about 6 s left")
    assert any(line.startswith("study: 5 of 6 stages") for line in progress)


def test_a_failure_ends_its_life_alone_and_is_told_once(tmp_path):
    lab = Lab(tmp_path)
    bad = tiny_experiment(tmp_path, model={"name": "bad", "builder": "tests.harness.test_study:broken"})
    with pytest.raises(StageError, match="by design") as failed:
        lab.run(bad, tiny_experiment(tmp_path))
    assert len(failed.value.failures) == 1
    assert len(lab.store.record_paths()) == 3, "the other life has its rows"


def broken(classes: int):
    raise RuntimeError("broken by design")


def test_the_total_counts_every_record_once(tmp_path):
    lab, lives = three_lives(tmp_path)
    work_all(tmp_path, lab.device, [*lives, *lives])
    stages = stage_rows(Book.read(lab.store))
    found = {each.name: each for each in totals(stages)}
    records = list(lab.store.records())
    spent = math.fsum(r.joules + r.repeated_joules for r in records if r.group is None) / 3600
    (inference,) = [record for record in records if record.group is not None]
    measuring = inference.details["spent"]["joules"] / 3600
    assert measuring > 1.5 * inference.joules / 3600, "idling, warming up and looking for the best batch cost, too"
    assert found["all"].records == len(records) == 7, "three trainings, three engines, one shape"
    assert found["all"].spent_wh == pytest.approx(spent + measuring)
    assert found["base"].attributed_wh == pytest.approx(found["base"].spent_wh)
    assert re.match(r"spent in all: ~\S+ W\.h, each of 7 records once \(base ~", next(lines(stages)))


def test_nothing_recorded_has_no_total():
    assert list(lines([])) == []


def test_a_training_is_not_corrected_by_what_building_an_engine_took(tmp_path):
    """An engine that was built ten times faster than the model says foretold a training of a tenth."""
    (life,) = lives_of(tiny_experiment(tmp_path), find_device("cpu"), Lab(tmp_path).store)
    task = life.task.model_copy(update={"model": life.task.model.model_copy(update={"name": "repdistiller/resnet8"})})
    train, other = (Stage(fn, Training(task=task)) for fn in ("a:train", "a:other"))
    slow = Machine("slow", 1e9, 1e-3, 3, 1, 10, 30)
    told = Forecaster([], slow)
    before, measuring = told.of(train, "m"), told.of(life.measurement({"signature": "s"}), "m")
    assert before.by == "model"
    assert modelled(life.build, slow).seconds > 1
    told.learn(life.build, 1.0, 1e-3)
    assert told.of(train, "m") == before
    told.learn(other, before.joules * 3, before.seconds * 3)
    assert told.of(train, "m").seconds == pytest.approx(3 * before.seconds), "a training corrects another"
    assert told.of(life.measurement({"signature": "s"}), "m") == measuring, "its protocol says how long it takes"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder of choices with a tiny network and a study of it."""
    for group in ("model", "experiment"):
        (tmp_path / "own" / group).mkdir(parents=True)
    (tmp_path / "own/model/tiny.yaml").write_text("name: tiny\nbuilder: tests.tiny:tiny\n")
    quick = "recipe=check, data=synthetic, scale=smoke, scale.train_images=64, scale.test_images=32"
    (tmp_path / "own/experiment/mine.yaml").write_text(
        f"- {{overrides: [model=tiny, {quick}], sweep: {{seed: [0, 1]}}}}\n"
        f"- {{overrides: [model=tiny, {quick}, seed=7], unavailable: it is not}}\n"
    )
    return [
        "--config-dir", str(tmp_path / "own"), "experiment=mine", "hardware=cpu", "engine=torch",
        "inference.window_s=0.05", "inference.idle_s=0.01", "inference.warmup_s=0.01", "inference.warmup_cap_s=0.05",
        "inference.curve_window_s=0.02", "inference.windows=2", "inference.batch_sizes=[1,8]",
        f"paths.results={tmp_path}/r", f"paths.artifacts={tmp_path}/a",
    ]  # fmt: skip


def test_a_dry_run_says_what_it_will_take_and_does_nothing(mine, tmp_path, capsys):
    assert main(["study", *mine, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "study mine: 3 experiment(s), 1 of them n/a" in said.err
    assert "it is not" in said.err
    assert said.out.count("seed ") == 2
    assert "to do: 5 stage(s)" in said.out
    assert not (tmp_path / "r").exists()


def test_a_study_ends_in_its_table_and_is_not_worked_twice(mine, tmp_path, capsys):
    assert main(["study", *mine]) == 0
    first = capsys.readouterr()
    assert "study: 0 of 4 stages" in first.err
    assert "each of 5 records once" in first.out
    before = {path: path.read_bytes() for path in (tmp_path / "r/records").rglob("*.json")}
    assert main(["study", *mine]) == 0
    again = capsys.readouterr()
    assert "this run: 0 W.h" in again.err
    assert {path: path.read_bytes() for path in (tmp_path / "r/records").rglob("*.json")} == before
