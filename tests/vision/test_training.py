"""The training loop: schedules, results of the last epoch, interruption, and losses that are not numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.plan.task import Recipe
from benchmark.vision import training
from benchmark.vision.data import loaders
from benchmark.vision.evaluation import accuracy
from tests.bench import PlainBench
from tests.tiny import Scaled, tiny


def _recipe(**values) -> Recipe:
    base = {"name": "t", "epochs": 160, "batch_size": 128, "lr": 0.1, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Recipe(**{**base, **values})


def test_multistep_drops_at_half_and_three_quarters_as_torch_does():
    recipe, steps = _recipe(), 391
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [80, 120], 0.1)
    for epoch in range(160):
        wanted = optimiser.param_groups[0]["lr"]
        for step in (0, steps - 1):
            assert training.rate(recipe, epoch * steps + step, steps) == pytest.approx(wanted)
        optimiser.step()
        schedule.step()


def test_a_single_epoch_keeps_the_first_rate():
    assert training.rate(_recipe(epochs=1), 0, 10) == pytest.approx(0.1)


def test_onecycle_rises_to_the_rate_and_falls_to_nothing():
    recipe = _recipe(epochs=10, schedule="onecycle", warmup=0.3)
    rates = [training.rate(recipe, step, 10) for step in range(100)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in (29, 30)
    assert 0 < rates[-1] < 0.002
    assert all(a < b for a, b in pairwise(rates[:30]))


@pytest.mark.parametrize(("epochs", "final"), [(50, 0.001), (600, 0.0)])
def test_cosine_is_torchs_at_the_start_of_every_epoch(epochs, final):
    recipe, steps = _recipe(epochs=epochs, lr=0.025, schedule="cosine", final_lr=final), 7
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.025)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs, eta_min=final)
    for epoch in range(epochs):
        wanted = optimiser.param_groups[0]["lr"]
        for step in (0, steps - 1):
            assert training.rate(recipe, epoch * steps + step, steps) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        optimiser.step()
        schedule.step()
    assert training.rate(recipe, (epochs - 1) * steps, steps) > final


def test_cosine_by_the_batch_is_the_one_by_the_epoch_at_its_start_and_falls_in_between():
    by_epoch, by_step = (_recipe(epochs=9, schedule=name) for name in ("cosine", "cosine_step"))
    rates = [training.rate(by_step, step, 5) for step in range(45)]
    assert all(a > b for a, b in pairwise(rates))
    assert rates[::5] == [training.rate(by_epoch, step, 5) for step in range(0, 45, 5)]
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("schedule", ["multistep", "constant", "cosine", "cosine_step"])
def test_warm_up_rises_by_the_batch_to_the_rate_and_a_cosine_takes_the_rest(schedule):
    recipe = _recipe(epochs=12, schedule=schedule, warmup_epochs=2)
    rates = [training.rate(recipe, step, 10) for step in range(120)]
    assert rates[:20] == pytest.approx([0.1 * k / 20 for k in range(1, 21)])
    assert rates[20] == pytest.approx(0.1)
    plain = recipe.model_copy(update={"warmup_epochs": 0})
    if schedule.startswith("cosine"):
        shorter = plain.model_copy(update={"epochs": 10})
        assert rates[20:] == [training.rate(shorter, step, 10) for step in range(100)]
    else:
        assert rates[20:] == [training.rate(plain, step, 10) for step in range(20, 120)]


def test_a_warm_up_longer_than_a_shortened_training_fills_it():
    recipe = _recipe(epochs=1, schedule="cosine", warmup_epochs=5)
    assert [training.rate(recipe, step, 4) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_onecycle_has_its_own_warm_up():
    with pytest.raises(ValueError, match="warmup_epochs does not go with schedule=onecycle"):
        _recipe(schedule="onecycle", warmup_epochs=1)


def test_new_fields_of_a_recipe_change_no_key():
    assert set(_recipe().identity()) == {"name", "epochs", "batch_size", "lr", "mean", "std"}


def _train(task, bench):
    training.seed_everything(task.seed)
    model = tiny(task.data.classes)
    batches = loaders(task, bench.data_dir, bench.device)
    history = training.fit(bench, model, batches, training.loss_of(task.recipe), task)
    return model, history, batches


def _longer(task, epochs=5):
    return task.model_copy(update={"recipe": task.recipe.model_copy(update={"epochs": epochs})})


@pytest.mark.parametrize("broken_at", [1.4, 2.0, 3.9])
def test_broken_off_and_resumed_gives_the_same_weights(task, broken_at):
    task = _longer(task)
    whole, history, _ = _train(task, PlainBench())
    bench = PlainBench(stop_at=broken_at)
    with pytest.raises(KeyboardInterrupt):
        _train(task, bench)
    torch.manual_seed(99)  # a new process knows nothing of the old generator
    resumed, later, _ = _train(task, PlainBench(state=bench.state))
    assert vars(later) == vars(history)
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_resuming_skips_the_epochs_that_are_done(task):
    bench = PlainBench(stop_at=3.5)
    with pytest.raises(KeyboardInterrupt):
        _train(_longer(task), bench)
    after = PlainBench(state=bench.state)
    _train(_longer(task), after)
    assert min(after.seen) > 3


def test_the_last_epoch_is_the_result_and_the_best_stands_beside_it(task):
    model, history, batches = _train(_longer(task), PlainBench())
    values = history.values()
    assert values["acc_pct"] == history.test_acc_pct[-1] == pytest.approx(accuracy(model, batches.test))
    assert values["best_acc_pct"] == max(history.test_acc_pct)
    assert history.test_epochs == [1, 2, 3, 4, 5]
    assert history.test_acc_pct[int(values["best_epoch"]) - 1] == values["best_acc_pct"]
    assert values["epochs"] == 5


def test_evaluation_is_off_the_meter_every_epoch(task):
    bench = PlainBench()
    _train(_longer(task), bench)
    assert bench.pauses == 5


def test_epochs_between_tests_are_not_tested_and_the_last_is(task):
    every = _longer(task, 5)
    task = every.model_copy(update={"recipe": every.recipe.model_copy(update={"test_every": 2})})
    bench, shown = PlainBench(), []
    bench.progress = lambda done, total, **numbers: shown.append(set(numbers)) if numbers else None
    _, history, _ = _train(task, bench)
    _, wanted, _ = _train(every, PlainBench())
    assert history.test_epochs == [2, 4, 5]
    assert history.test_acc_pct == [wanted.test_acc_pct[epoch - 1] for epoch in (2, 4, 5)]
    assert (history.loss, len(history.loss)) == (wanted.loss, 5)
    assert bench.pauses == 3
    assert shown == [{"loss"}, {"loss", "acc_pct"}, {"loss"}, {"loss", "acc_pct"}, {"loss", "acc_pct"}]
    values = history.values()
    assert values["acc_pct"] == history.test_acc_pct[-1]
    assert values["best_epoch"] in (2, 4, 5)
    assert values["best_acc_pct"] == wanted.test_acc_pct[values["best_epoch"] - 1] == max(history.test_acc_pct)


def test_it_learns(task):
    scale = task.scale.model_copy(update={"train_images": 400, "test_images": 100})
    _, history, _ = _train(_longer(task, 8).model_copy(update={"scale": scale}), PlainBench())
    assert history.test_acc_pct[-1] > 60


def test_the_loss_is_the_mean_over_images_also_with_a_ragged_batch(task):
    """80 images in batches of 32: the last holds 16, and must weigh half."""
    frozen = task.recipe.model_copy(update={"lr": 1e-12, "epochs": 1, "weight_decay": 0.0, "augment": "none"})
    task = task.model_copy(update={"recipe": frozen})

    class Even(nn.Module):
        """Logits fixed: the loss depends on the label alone."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-1, 1, 10))

        def forward(self, images):
            return self.weight.expand(len(images), -1)

    batches = loaders(task, Path(), "cpu")
    history = training.fit(PlainBench(), Even(), batches, training.loss_of(frozen), task)
    labels = batches.train.images.labels
    wanted = nn.functional.cross_entropy(torch.linspace(-1, 1, 10).expand(80, -1), labels).item()
    assert history.loss == [pytest.approx(wanted, rel=1e-5)]
    assert history.train_acc_pct == [pytest.approx(100 * (labels == 9).double().mean().item())]


def test_nan_stops_the_stage_with_epoch_and_remedy(task):
    recipe = task.recipe.model_copy(update={"lr": 1e30})
    with pytest.raises(training.TrainingError, match=r"loss became (nan|inf) in epoch 1 of 2 .*recipe.lr"):
        _train(task.model_copy(update={"recipe": recipe}), PlainBench())


def test_parameters_of_the_loss_train_too(task):
    loss = Scaled()
    training.fit(PlainBench(), tiny(10), loaders(task, Path(), "cpu"), loss, task)
    assert loss.scale.item() != 1.0


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_tf32_is_on_exactly_where_it_was_asked_for(precision):
    training.set_precision(precision)
    assert torch.backends.cudnn.allow_tf32 == (precision != "fp32")
    assert torch.backends.cuda.matmul.allow_tf32 == (precision != "fp32")
    training.set_precision("fp32")
