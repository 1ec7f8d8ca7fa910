"""Mixed precision: a setting of the method, ranked against plain training, its skipped steps counted."""

from __future__ import annotations

import pytest
import torch

from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.plan.stage import Phase
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.report.tables import footnotes
from benchmark.vision import training
from benchmark.vision.data import loaders
from methods.amp import MixedPrecision
from methods.baseline import Baseline, Training, base_training
from methods.training import train
from tests.bench import PlainBench
from tests.harness.helpers import here_of, lives_of, tiny_experiment, work_all
from tests.tiny import tiny

DEVICE = find_device("cpu")


class Overflowing(training.CrossEntropy):
    """The gradients of some steps are infinite, the loss never."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, model, images, labels, index):
        value, logits = super().forward(model, images, labels, index)
        if int(self.step) in self.steps:
            value.register_hook(lambda gradient: gradient * float("inf"))
        self.step += 1
        return value, logits


def _fit(task, loss, bench=None, precision="fp16", model=None):
    task = task.model_copy(update={"train_precision": precision, "recipe": _constant(task.recipe)})
    training.seed_everything(task.seed)
    model = model or tiny(task.data.classes)
    bench = bench or PlainBench()
    return model, training.fit(bench, model, loaders(task, bench.data_dir, bench.device), loss, task)


def _constant(recipe):
    return recipe.model_copy(update={"epochs": 4, "schedule": "constant"})  # 3 steps an epoch


@pytest.mark.parametrize("profile", ["fast", "published"])
def test_steps_that_the_scaler_skips_are_counted_and_change_nothing(task, profile):
    task = task.model_copy(update={"profile": profile})
    # the last two alone overflow: the weights must be those of ten steps
    model, history = _fit(task, Overflowing(10, 11))
    assert (history.skipped_steps, history.loss_scale) == (2, 65536 / 4)
    assert history.values()["skipped_steps"] == 2
    seen = []

    class Watching(Overflowing):
        def forward(self, model, images, labels, index):
            if int(self.step) == 10:
                seen.extend(parameter.detach().clone() for parameter in model.parameters())
            return super().forward(model, images, labels, index)

    _fit(task, Watching(10, 11))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), seen, strict=True))


def test_the_count_survives_an_interruption(task):
    whole, history = _fit(task, Overflowing(1, 7))
    bench = PlainBench(stop_at=2.2)
    with pytest.raises(KeyboardInterrupt):
        _fit(task, Overflowing(1, 7), bench)
    resumed, later = _fit(task, Overflowing(1, 7), PlainBench(state=bench.state))
    assert (later.skipped_steps, later.loss_scale) == (history.skipped_steps, history.loss_scale) == (2, 65536 / 4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_scaler_nothing_is_counted(task, precision):
    _, history = _fit(task, Overflowing(), precision=precision)
    assert history.skipped_steps is history.loss_scale is None
    assert "skipped_steps" not in history.values()


def test_bf16_computes_layers_in_half_precision_and_keeps_weights_and_loss_in_fp32(task):
    seen = {}

    class Spying(training.CrossEntropy):
        def forward(self, model, images, labels, index):
            value, logits = super().forward(model, images, labels, index)
            seen.update(loss=value.dtype, logits=logits.dtype)
            return value, logits

    model, history = _fit(task, Spying(), precision="bf16")
    assert seen == {"loss": torch.float32, "logits": torch.bfloat16}
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert history.execution["autocast"].startswith("bf16 on a CPU (")
    assert history.loss[-1] < history.loss[0]


def test_a_record_says_which_instructions_a_cpu_has_for_it(monkeypatch):
    from benchmark.vision.training_step import autocast_told

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    assert autocast_told("bf16", "cpu") == {"autocast": "bf16 on a CPU (avx512_bf16)"}
    assert autocast_told("fp16", "cpu") == {"autocast": "fp16 on a CPU (no instructions for fp16)"}
    assert autocast_told("fp16", "cuda:0") == {"autocast": "fp16 on cuda"}
    assert autocast_told("tf32", "cuda:0") == autocast_told("fp32", "cpu") == {}


def test_it_is_the_stage_that_base_precision_gives_other_methods(task):
    amp = MixedPrecision(precision="bf16").plan(task)
    base = task.model_copy(update={"base_precision": "bf16"})
    assert amp == Baseline().plan(base)
    assert amp.steps == ((Phase.BASE, base_training(base)),)
    assert amp.network.params.autocast == "bf16"
    assert amp.network.params.task == Baseline().plan(task).network.params.task, "no other stage's key knows of it"
    assert amp.network.key(str) != Baseline().plan(task).network.key(str)


def test_two_autocasts_are_refused(task):
    with pytest.raises(ValueError, match="leave out base_precision=bf16"):
        MixedPrecision(precision="fp16").plan(task.model_copy(update={"base_precision": "bf16"}))
    with pytest.raises(ValueError, match="puts every method under autocast"):
        MixedPrecision(precision="bf16").plan(task.model_copy(update={"train_precision": "bf16"}))
    with pytest.raises(ValueError, match="base_precision=bf16 goes with train_precision=fp32 or tf32"):
        task.model_validate({**task.model_dump(), "train_precision": "fp16", "base_precision": "bf16"})


def test_fp16_is_refused_on_a_cpu_before_anything_is_done(task):
    params = Training(task=task, autocast="fp16")
    with pytest.raises(training.TrainingError, match=r"needs a GPU.*bf16"):
        train(PlainBench(), params)


@pytest.mark.parametrize(
    ("words", "autocast"),
    [
        (["method=training/amp"], ["bf16"]),
        (["method=pruning/l1", "base_precision=bf16"], ["bf16", None, None]),
        (["method=quantization/int8", "base_precision=fp16"], ["fp16"]),
        (["method=distillation/kd", "pair=resnet14__resnet8", "base_precision=bf16"], ["bf16", None]),
    ],
)
def test_the_base_training_of_any_family_takes_it_and_no_other_stage(words, autocast):
    parsed, _ = config.parse(config.compose(words), here_of(DEVICE))
    trained = [stage.params for _, stage in parsed.plan().steps if hasattr(stage.params, "task")]
    assert [getattr(params, "autocast", None) for params in trained][: len(autocast)] == autocast
    assert all(params.task.base_precision is None for params in trained), "keys would differ by it"
    assert all(params.task.train_precision == "fp32" for params in trained)


def test_a_row_is_ranked_with_its_baseline_and_says_what_it_saved(tmp_path):
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    baseline = tiny_experiment(tmp_path)
    block = {"_target_": "methods.amp.MixedPrecision", "name": "training/amp", "precision": "bf16"}
    for experiment in (baseline, baseline.model_copy(update={"method": block})):
        work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store))
    book = Book.read(store)
    plain, amp = summarise(book, stage_rows(book))
    assert (plain.method, amp.method) == ("baseline", "training/amp")
    assert (plain.autocast, plain.train_precision, amp.train_precision) == ("", "fp32", "fp32")
    assert amp.autocast.startswith("bf16 on a CPU")
    assert amp.tec_saved_pct == pytest.approx(100 * (1 - amp.tec_wh / plain.tec_wh))
    assert plain.tec_saved_pct != plain.tec_saved_pct, "a baseline is compared with nothing"
    assert {rank for row in (plain, amp) for rank in row.rank_1b.split("-")} <= {"1", "2"}
    assert {plain.rank_1b, amp.rank_1b} != {"1"}, "they are rivals"
    assert any(
        "training/amp, tiny: a training of its life ran under autocast, bf16" in line for line in footnotes([amp])
    )
