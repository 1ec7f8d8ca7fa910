"""The real graphs, where there is a GPU: the same losses, no waiting, an exact account of what was replayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.plan.stage import Network
from benchmark.plan.task import Model, Scale, Task
from benchmark.vision import data, graph, network, training
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.switches import switches
from benchmark.vision.teacher import Teacher
from methods.pruning.masks import hold, release
from methods.pruning.removal import zero
from tests.bench import PlainBench
from tests.tiny import Scaled, tiny

pytestmark = pytest.mark.gpu

CLOSE = {"fp32": 1e-3, "tf32": 3e-2, "bf16": 1e-1}
"""Relative, for the losses of seven short epochs. In fp32 TF32 is off and only the order of sums differs; the other two
round at 2^-11 and 2^-8, and training amplifies it. What a graph does wrong (a frozen rate, lost or repeated images, old
dropout) is larger, or is caught by the count of images."""


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


def _train(task: Task, bench: PlainBench, loss=None, model=None):
    training.seed_everything(task.seed)
    model = network.build_model(task.model, task.data.classes) if model is None else model
    batches = data.loaders(task, bench.data_dir, bench.device)
    return model, training.fit(bench, model, batches, loss or training.loss_of(task.recipe), task)


def _with(task: Task, **values) -> Task:
    return task.model_copy(update={"recipe": task.recipe.model_copy(update=values)})


def _eager(monkeypatch):
    monkeypatch.setattr(training, "graph_backend", lambda device: None)


def _captured(history) -> None:
    assert history.execution["no_graph_because"] == ""
    assert history.execution["graphs"] == [16, 32]


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_graphs_give_the_losses_of_eager_steps(task, precision, clip_norm, monkeypatch):
    task = _with(task, clip_norm=clip_norm).model_copy(update={"train_precision": precision})
    _, graphed = _train(task, GpuBench())
    _captured(graphed)
    _eager(monkeypatch)
    _, eager = _train(task, GpuBench())
    assert graphed.loss == pytest.approx(eager.loss, rel=CLOSE[precision])


@pytest.mark.parametrize("schedule", ["cosine", "cosine_step"])
def test_rates_warm_up_and_cutout_reach_replayed_steps(task, schedule, monkeypatch):
    task = _with(task, schedule=schedule, warmup_epochs=2, cutout=16, lr=0.05)
    _, graphed = _train(task, GpuBench())
    _captured(graphed)
    _eager(monkeypatch)
    _, eager = _train(task, GpuBench())
    assert graphed.loss == pytest.approx(eager.loss, rel=1e-2)


def test_cutout_on_the_device_is_that_of_the_host(task):
    task = _with(task, cutout=16)
    there, here = (data.loaders(task, GpuBench.data_dir, device).train for device in ("cuda:0", "cpu"))
    for ours, theirs in zip(there.epoch(3), here.epoch(3), strict=True):
        assert torch.equal(ours[2].cpu(), theirs[2])
        assert torch.equal(ours[0].cpu() == 0, theirs[0] == 0)
        torch.testing.assert_close(ours[0].cpu(), theirs[0], rtol=1e-6, atol=1e-6)


def test_parameters_of_the_loss_are_captured_too(task, monkeypatch):
    graphed, eager = Scaled(), Scaled()
    _, history = _train(task, GpuBench(), graphed)
    _captured(history)
    _eager(monkeypatch)
    _train(task, GpuBench(), eager)
    assert graphed.scale.item() == pytest.approx(eager.scale.item(), rel=1e-3)
    assert graphed.scale.item() != 1.0


class Drawing(CrossEntropy):
    """Notes how many of a thousand ones its dropout left, newest first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("left", torch.zeros(64))
        self.register_buffer("ones", torch.ones(1000))

    def forward(self, model, images, labels, index):
        drawn = (nn.functional.dropout(self.ones, 0.5) != 0).sum().float()
        self.left.copy_(torch.cat([drawn[None], self.left[:-1]]))
        return super().forward(model, images, labels, index)


def test_replayed_dropout_draws_anew_and_as_eager_steps_do(task, monkeypatch):
    graphed, eager = Drawing(), Drawing()
    task = task.model_copy(update={"model": Model(name="tiny", builder="tests.tiny:tiny")})
    _, history = _train(task, GpuBench(), graphed)
    _captured(history)
    _eager(monkeypatch)
    _train(task, GpuBench(), eager)
    drawn = graphed.left[:21].tolist()  # three steps in each of seven epochs
    assert 0 not in drawn
    assert len(set(drawn)) > 10
    assert drawn == eager.left[:21].tolist()


class Mimicking(nn.Module):
    """Cross-entropy and the distance to a teacher's logits."""

    capturable = True

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, model, images, labels, index):
        logits = model(images)
        apart = (logits - self.teacher(images)).square().mean()
        return nn.functional.cross_entropy(logits, labels) + apart, logits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["Teacher", "raw"])
def test_a_teacher_within_a_capture_answers_as_outside_and_stays_as_it_is(task, kind, precision, monkeypatch):
    task = task.model_copy(update={"train_precision": precision})

    def loss():
        torch.manual_seed(5)
        teacher = network.build_model(task.model, 10).requires_grad_(False)
        return Mimicking(Teacher(teacher) if kind == "Teacher" else teacher)

    held = loss()
    before = [tensor.clone() for tensor in (*held.parameters(), *held.buffers())]
    _, graphed = _train(task, GpuBench(), held)
    _captured(graphed)
    for one, other in zip(before, (*held.parameters(), *held.buffers()), strict=True):
        assert torch.equal(one, other.cpu())
    _eager(monkeypatch)
    _, eager = _train(task, GpuBench(), loss())
    assert graphed.loss == pytest.approx(eager.loss, rel=CLOSE[precision])


def test_masked_fine_tuning_under_graphs_keeps_filters_at_zero(task, monkeypatch):
    def tune():
        torch.manual_seed(2)
        model = network.build_model(task.model, 10)
        masks = {"conv1": torch.arange(model.conv1.out_channels) % 2 == 0}
        zero(model, masks)
        hold(model, masks)
        _, history = _train(task, GpuBench(), model=model)
        release(model)
        assert not model.conv1.weight[~masks["conv1"]].any()
        assert model.conv1.weight[masks["conv1"]].any()
        return history

    graphed = tune()
    _captured(graphed)
    _eager(monkeypatch)
    assert graphed.loss == pytest.approx(tune().loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_steps_are_captured_and_give_the_same_losses(task, precision):
    task = task.model_copy(update={"train_precision": precision})
    _, plain = _train(task, GpuBench())
    _, compiled = _train(task.model_copy(update={"compile": True}), GpuBench())
    _captured(compiled)
    assert compiled.execution["compiled"] is True
    assert compiled.loss == pytest.approx(plain.loss, rel=max(1e-2, CLOSE[precision]))


def test_two_trainings_in_one_process_are_both_captured_and_alike(task):
    _, first = _train(task, GpuBench())
    _, second = _train(task, GpuBench())
    _captured(first)
    _captured(second)
    assert second.loss == pytest.approx(first.loss, rel=1e-3)


class Waiting(CrossEntropy):
    """Looks at its own value on the host: legal, but not in a graph."""

    def forward(self, model, images, labels, index):
        value, logits = super().forward(model, images, labels, index)
        return value * (1.0 if value.item() > 0 else 2.0), logits


def test_after_a_failed_capture_training_goes_on_with_dropout_and_so_does_the_next(task):
    """The allocator and the generator must have left the capture: torch up to 2.11 leaves both in it."""
    task = task.model_copy(update={"model": Model(name="tiny", builder="tests.tiny:tiny")})
    broken = Waiting()
    _, history = _train(task, GpuBench(), broken)
    assert history.execution["no_graph_because"].startswith("capture failed: ")
    assert len(history.loss) == task.recipe.epochs
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # asserts inside torch while it believes a capture is under way
    assert torch.rand(1000, device="cuda:0").unique().numel() > 900
    _, later = _train(task, GpuBench())
    assert later.execution["graphs"] == []
    assert later.execution["no_graph_because"].startswith("an earlier capture of this process failed")
    _, wanted = _train(task, GpuBench(), type("Undeclared", (CrossEntropy,), {"capturable": False})())
    assert later.loss == pytest.approx(wanted.loss, rel=1e-3)


def test_a_capture_after_a_broken_one_was_ended_would_work(task, monkeypatch):
    """That nothing is captured any more is caution, not need: said here where it stops being true."""
    _train(task, GpuBench(), Waiting())
    monkeypatch.setattr(graph, "_failures", [])
    _, history = _train(task, GpuBench())
    assert history.execution["no_graph_because"] == ""
    assert history.execution["graphs"], "a new capture holds its steps"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_a_second_device_is_trained_on_alone(task):
    class Second(GpuBench):
        device = "cuda:1"

    before = torch.cuda.memory_allocated(0)
    model, history = _train(task, Second())
    _captured(history)
    assert {parameter.device for parameter in model.parameters()} == {torch.device("cuda:1")}
    assert torch.cuda.memory_allocated(0) == before
    _, first = _train(task, GpuBench())
    assert history.loss == pytest.approx(first.loss, rel=1e-2)


def test_what_training_sets_is_the_trainings_own(task):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with switches(tf32=False, cudnn_benchmark=False):
        _train(task.model_copy(update={"train_precision": "tf32"}), GpuBench())
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (False, False, False)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_was_trained_on_the_device_proves_itself_there_and_moves_no_generator(task, precision, recipe):
    """In channels_last, on the device, to the bit; TF32 and autotuning off meanwhile."""
    model, _ = _train(task.model_copy(update={"train_precision": precision}), GpuBench())
    state = torch.cuda.get_rng_state("cuda:0"), torch.get_rng_state()
    stored = network.freeze(model, task.model, 10, recipe)
    assert isinstance(stored, Network)
    assert torch.equal(torch.cuda.get_rng_state("cuda:0"), state[0])
    assert torch.equal(torch.get_rng_state(), state[1])
    dropping = tiny(10).to("cuda:0")
    network.prove(dropping, Model(name="tiny", builder="tests.tiny:tiny"), 10)


def test_fast_and_published_give_the_same_losses_for_20_steps(task):
    task = task.model_copy(
        update={
            "scale": Scale(name="t", train_images=32, test_images=10),
            "recipe": task.recipe.model_copy(update={"epochs": 20}),
        }
    )
    task = task.model_copy(update={"train_precision": "fp32"})
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
