"""The real graphs, where there is a GPU: the same losses, no waiting, an exact account of what was replayed."""

from __future__ import annotations

import pytest
import torch

from benchmark.plan.task import Model, Scale, Task
from benchmark.vision import data, network, training
from tests.bench import PlainBench

pytestmark = pytest.mark.gpu


class GpuBench(PlainBench):
    device = "cuda:0"


class SyncForbidden(GpuBench):
    """From the first step of epoch `first` to its last, waiting for the device is an error."""

    first = 5

    def progress(self, done, total, **shown):
        if not shown:
            forbidden = done > self.first and done != int(done)
            torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
        super().progress(done, total, **shown)


@pytest.fixture
def task(task: Task) -> Task:
    """resnet8, 80 images in batches of 32, seven epochs: enough for the ragged batch to be captured, too."""
    return task.model_copy(
        update={
            "model": Model(name="m", builder="benchmark.vision.models.repdistiller.resnet:resnet8"),
            "recipe": task.recipe.model_copy(update={"epochs": 7, "lr": 0.01}),
        }
    )


def _train(task: Task, bench: PlainBench):
    training.seed_everything(task.seed)
    model = network.build_model(task.model, task.data.classes)
    batches = data.loaders(task, bench.data_dir, bench.device)
    return model, training.fit(bench, model, batches, training.loss_of(task.recipe), task)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_graphs_give_the_losses_of_eager_steps(task, precision, monkeypatch):
    task = task.model_copy(update={"train_precision": precision})
    _, graphed = _train(task, GpuBench())
    monkeypatch.setattr(training, "graph_backend", lambda device: None)
    _, eager = _train(task, GpuBench())
    assert graphed.execution["no_graph_because"] == ""
    assert graphed.execution["graphs"] == [16, 32]
    assert graphed.loss == pytest.approx(eager.loss, rel=2e-2 if precision == "bf16" else 1e-3)


def test_fast_and_published_give_the_same_losses_for_20_steps(task):
    task = task.model_copy(
        update={
            "scale": Scale(name="t", train_images=32, test_images=10),
            "recipe": task.recipe.model_copy(update={"epochs": 20}),
        }
    )
    _, fast = _train(task, GpuBench())
    _, slow = _train(task.model_copy(update={"profile": "published"}), GpuBench())
    assert fast.execution["graphs"] == [32]
    assert fast.loss == pytest.approx(slow.loss, rel=1e-3)


def test_an_epoch_waits_for_nothing(task):
    try:
        _, history = _train(task, SyncForbidden())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert history.execution["graphs"] == [16, 32]


def test_the_forbidding_bench_notices_a_wait(task):
    class Reading(training.CrossEntropy):
        capturable = False

        def forward(self, model, images, labels, index):
            value, logits = super().forward(model, images, labels, index)
            value.item()
            return value, logits

    bench = SyncForbidden()
    model = network.build_model(task.model, task.data.classes)
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            training.fit(bench, model, data.loaders(task, bench.data_dir, bench.device), Reading(), task)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_broken_off_and_resumed_goes_on_as_if_nothing_had_been(task):
    """Up to rounding: cudnn may choose other algorithms in another process."""
    _, whole = _train(task, GpuBench())
    bench = GpuBench(stop_at=5.4)
    with pytest.raises(KeyboardInterrupt):
        _train(task, bench)
    _, resumed = _train(task, GpuBench(state=bench.state))
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-3)


def test_fp16_trains_with_its_scaler(task):
    _, history = _train(task.model_copy(update={"train_precision": "fp16"}), GpuBench())
    assert "scaler of fp16" in history.execution["no_graph_because"]
    assert history.loss[-1] < history.loss[0]
