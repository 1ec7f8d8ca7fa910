"""Execution: graphs (on a fake), both profiles, compilation, teachers; what may differ and what must not."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import subprocess
import sys
import types

import pytest
import torch
from torch import nn

from benchmark.plan.task import Model, Scale, Task
from benchmark.vision import data, graph, network, originals, published, training, training_step
from benchmark.vision.graph import WARM_UP, Graphed
from benchmark.vision.models.repdistiller import resnet
from benchmark.vision.switches import switches
from tests.bench import PlainBench
from tests.tiny import Scaled
from tests.vision.fake_graph import FakeGraphs


def _longer(task: Task, epochs: int = 6, **values) -> Task:
    return task.model_copy(update={"recipe": task.recipe.model_copy(update={"epochs": epochs, **values})})


def _train(task: Task, bench: PlainBench, loss=None):
    training.seed_everything(task.seed)
    model = network.build_model(task.model, task.data.classes)
    history = training.fit(
        bench, model, data.loaders(task, bench.data_dir, bench.device), loss or training.loss_of(task.recipe), task
    )
    return model, history


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGraphs:
    """Every fit() of the test uses this backend."""
    graphs = FakeGraphs()
    monkeypatch.setattr(training, "graph_backend", lambda device: graphs)
    return graphs


# --- graphs ------------------------------------------------------------------------------------------------------------


def test_replayed_steps_train_as_eager_ones_do(task, monkeypatch):
    """80 images in batches of 32: two full ones and a ragged one an epoch; a rate that changes every step; dropout."""
    task = _longer(task)
    eager_model, eager = _train(task, PlainBench())
    graphs = FakeGraphs()
    monkeypatch.setattr(training, "graph_backend", lambda device: graphs)
    model, history = _train(task, PlainBench())
    assert _same_weights(model, eager_model)
    assert (history.loss, history.train_acc_pct) == (eager.loss, eager.train_acc_pct)
    assert graphs.captures == 2
    # 6 epochs: 12 full batches and 6 ragged ones, each size eager while it warms up
    assert graphs.replays == (12 - WARM_UP) + (6 - WARM_UP)
    assert history.execution["graphs"] == [16, 32]
    assert history.execution["no_graph_because"] == ""
    assert eager.execution["graphs"] == []
    assert eager.execution["no_graph_because"] == "this device has no graphs"


def test_a_rate_given_as_a_number_would_be_frozen(task, fake, monkeypatch):
    """The fake is as unforgiving as the real thing: were the rate no tensor, replays would keep the first one."""
    task = _longer(task)
    right, _ = _train(task, PlainBench())

    def as_number(run, value):
        for group in run.optimiser.param_groups:
            group["lr"] = value

    monkeypatch.setattr("benchmark.vision.training_step.Run.set_rate", as_number)
    wrong, _ = _train(task, PlainBench())
    assert not _same_weights(right, wrong)


def test_lost_replays_stop_the_training(task, fake):
    fake.lost = 1
    with pytest.raises(training.TrainingError, match=r"epoch 2 was to train on 80 images, but the device counted 48"):
        _train(_longer(task), PlainBench())


def test_broken_off_and_resumed_under_graphs_gives_the_same_weights(task, fake):
    task = _longer(task)
    whole, history = _train(task, PlainBench())
    bench = PlainBench(stop_at=4.4)
    with pytest.raises(KeyboardInterrupt):
        _train(task, bench)
    captures = fake.captures
    resumed, later = _train(task, PlainBench(state=bench.state))
    assert fake.captures > captures
    assert _same_weights(resumed, whole)
    assert later.loss == history.loss


class _Reading(training.CrossEntropy):
    """Looks at its own value on the host: legal, but not in a graph."""

    def forward(self, model, images, labels, index):
        value, logits = super().forward(model, images, labels, index)
        return value * (1.0 if value.item() > 0 else 2.0), logits


def test_a_failed_capture_falls_back_to_eager_steps_and_says_why(task, fake):
    task = _longer(task)
    model, history = _train(task, PlainBench(), _Reading())
    wanted, _ = _train(task, PlainBench(), type("Undeclared", (training.CrossEntropy,), {"capturable": False})())
    assert _same_weights(model, wanted)
    assert fake.captures == 0
    assert history.execution["graphs"] == []
    assert history.execution["no_graph_because"] == (
        "capture failed: CUDA error: operation not permitted when stream is capturing"
    )


def test_after_a_failed_capture_dropout_draws_on_and_no_later_fit_captures(task, fake):
    """tiny has dropout, and the fake refuses to draw while a broken capture is open."""
    task = _longer(task)
    _train(task, PlainBench(), _Reading())
    assert (fake.attempts, fake.half_open) == (1, False)
    model, history = _train(task, PlainBench())
    assert (fake.attempts, fake.captures) == (1, 0)
    assert history.execution["graphs"] == []
    assert history.execution["no_graph_because"] == (
        "an earlier capture of this process failed (CUDA error: operation not permitted when stream is capturing)"
    )
    wanted, _ = _train(task, PlainBench(), type("Undeclared", (training.CrossEntropy,), {"capturable": False})())
    assert _same_weights(model, wanted)


def test_a_capture_left_open_would_stop_the_next_draw(task, fake, monkeypatch):
    monkeypatch.setattr(fake, "abandon", lambda: None)
    with pytest.raises(RuntimeError, match="Offset increment outside graph capture"):
        _train(_longer(task), PlainBench(), _Reading())


def test_other_faults_inside_a_capture_end_it_too_and_are_raised(task, fake, monkeypatch):
    class Wrong(training.CrossEntropy):
        def forward(self, model, images, labels, index):
            if fake.attempts:
                raise KeyError("a fault of the loss")
            return super().forward(model, images, labels, index)

    ended = []
    monkeypatch.setattr(fake, "abandon", lambda: ended.append(1))
    with pytest.raises(KeyError, match="a fault of the loss"):
        _train(_longer(task), PlainBench(), Wrong())
    assert ended == [1]


def test_ending_a_broken_capture_asks_torch_for_everything_once(monkeypatch):
    """What Cuda.abandon does, on stand-ins for what only a GPU has."""
    asked, generator = [], torch.Generator()

    class Broken:
        def reset(self):
            asked.append("reset")
            raise RuntimeError("in all kinds of weird states")

    class Stand(graph.Cuda):
        def __init__(self) -> None:
            self._stream = types.SimpleNamespace(device=torch.device("cuda:1"))
            self._pool, self._latest = (0, 7), Broken()

    ends = {"_cuda_endAllocateToPool": "end", "_cuda_releasePool": "release"}
    for name, word in ends.items():
        monkeypatch.setattr(torch._C, name, lambda *given, word=word: asked.append((word, *given)), raising=False)
    default = types.SimpleNamespace(clone_state=lambda: generator, graphsafe_set_state=asked.append)
    monkeypatch.setattr(torch.cuda, "default_generators", (None, default))
    Stand().abandon()
    assert asked == ["reset", ("end", 1, (0, 7)), ("release", 1, (0, 7)), generator]

    def already(*given):
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    asked.clear()
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", already, raising=False)
    Stand().abandon()
    assert asked == ["reset", generator], "what torch has ended itself is not released a second time"


@pytest.mark.slow
def test_a_compilation_within_a_capture_fails_it_and_is_named(task, monkeypatch):
    """With the compiler's own guards and no code generation: the loss turns a Python switch at the worst moment."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend="eager", dynamic=False))

    class Plain:
        """Captures by doing: the fake recorder's dispatch mode would keep the compiler out."""

        def __init__(self) -> None:
            self.captures = 0

        def stream(self):
            return contextlib.nullcontext()

        def capture(self, work):
            if self.captures == 0 and turning:
                loss.factor = 2.0
            self.captures += 1
            work()  # which is the first replay, too
            replays = itertools.count()
            return lambda: work() if next(replays) else None

        def abandon(self):
            pass

    class Factor(training.CrossEntropy):
        factor = 1.0

        def forward(self, model, images, labels, index):
            value, logits = super().forward(model, images, labels, index)
            return value * self.factor, logits

    task = _longer(task, 6).model_copy(update={"compile": True})
    monkeypatch.setattr(training, "graph_backend", lambda device: Plain())
    for turning in (False, True):
        torch.compiler.reset()
        loss = Factor()
        _, history = _train(task, PlainBench(), loss)
        assert bool(history.execution["graphs"]) is not turning
        assert ("Detected recompile" in history.execution["no_graph_because"]) is turning
    torch.compiler.reset()


def test_what_training_sets_is_the_trainings_own(task):
    """cudnn's autotuning, or TF32, left on would make an inference depend on what the process did before."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    seen = []

    def now():
        return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32

    class Looking(training.CrossEntropy):
        def forward(self, model, images, labels, index):
            seen.append(now())
            return super().forward(model, images, labels, index)

    for benchmark, tf32 in ((False, True), (True, False)):
        with switches(tf32=tf32, cudnn_benchmark=benchmark):
            for precision in ("fp32", "tf32"):
                seen.clear()
                _train(task.model_copy(update={"train_precision": precision}), PlainBench(), Looking())
                assert set(seen) == {(True, precision == "tf32", precision == "tf32")}
                assert now() == (benchmark, tf32, tf32)
            with pytest.raises(KeyboardInterrupt):
                _train(task, PlainBench(stop_at=0.5))
            assert now() == (benchmark, tf32, tf32)
    seen.clear()
    _train(task.model_copy(update={"profile": "published"}), PlainBench(), Looking())
    assert set(seen) == {(False, False, False)}, "NNI's example does not ask for it"


def test_a_loss_that_does_not_declare_it_is_not_captured(task, fake):
    class Silent(nn.Module):
        def forward(self, model, images, labels, index):
            logits = model(images)
            return nn.functional.cross_entropy(logits, labels), logits

    _, history = _train(_longer(task), PlainBench(), Silent())
    assert fake.captures == 0
    assert history.execution["no_graph_because"] == "Silent does not declare capturable = True"


def test_fp16_is_not_captured_and_says_so(task, fake):
    _, history = _train(_longer(task).model_copy(update={"train_precision": "fp16"}), PlainBench())
    assert fake.captures == 0
    assert "scaler of fp16" in history.execution["no_graph_because"]
    assert history.loss[-1] < history.loss[0]


def test_clipping_and_parameters_of_the_loss_are_captured_too(task, monkeypatch):
    task, eager, graphed = _longer(task, clip_norm=0.5), Scaled(), Scaled()
    _train(task, PlainBench(), eager)
    monkeypatch.setattr(training, "graph_backend", lambda device: FakeGraphs())
    _, history = _train(task, PlainBench(), graphed)
    assert history.execution["graphs"] == [16, 32]
    assert graphed.scale.item() == eager.scale.item() != 1.0


def test_every_size_warms_up_before_its_capture():
    calls: list[int] = []
    backend = FakeGraphs()
    graphed = Graphed(lambda rows: calls.append(len(rows)), backend)
    for size in (4, 4, 2, 4, 4, 4):
        graphed(torch.zeros(size, 1, dtype=torch.int64))
    # the fourth 4 is captured (Python runs once more) and replayed (it does not)
    assert calls == [4, 4, 2, 4, 4]
    assert (backend.captures, backend.replays, graphed.replays) == (1, 2, 2)
    assert graphed.sizes == [4]


def test_a_cpu_has_no_graphs():
    assert graph.graph_backend("cpu") is None


# --- both profiles -----------------------------------------------------------------------------------------------------

TOLERANCE = 1e-3
"""Relative, after 20 steps in fp32: memory formats sum in different orders, and training amplifies the last bit."""


@pytest.mark.parametrize(
    "builder", ["repdistiller.resnet:resnet8", pytest.param("repdistiller.vgg:vgg8", marks=pytest.mark.slow)]
)
def test_fast_and_published_give_the_same_losses_for_20_steps(task, builder):
    """One batch an epoch, so that the history holds the loss of every step."""
    task = _longer(task, 20, batch_size=8, lr=0.01).model_copy(
        update={
            "model": Model(name="m", builder=f"benchmark.vision.models.{builder}"),
            "scale": Scale(name="t", train_images=8, test_images=8),
        }
    )
    fast_model, fast = _train(task, PlainBench())
    slow_model, slow = _train(task.model_copy(update={"profile": "published"}), PlainBench())
    assert fast.loss == pytest.approx(slow.loss, rel=TOLERANCE)
    assert fast.loss[0] == pytest.approx(slow.loss[0], rel=1e-5)
    assert len(set(fast.loss)) == 20
    assert fast.train_acc_pct == slow.train_acc_pct
    assert any(p.is_contiguous(memory_format=torch.channels_last) and p.dim() == 4 for p in fast_model.parameters())
    assert all(p.is_contiguous() for p in slow_model.parameters())


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.slow
def test_in_float64_both_profiles_take_the_very_same_steps(task, clip_norm):
    """What is left between them in fp32 is rounding, and nothing else."""
    task = _longer(task, clip_norm=clip_norm, nesterov=clip_norm is None)
    losses = {}
    for profile in ("fast", "published"):
        task = task.model_copy(update={"profile": profile})
        torch.manual_seed(0)
        model = resnet.resnet8(10).double().train()
        run = training_step.start(model, training.loss_of(task.recipe), task, "cpu")
        losses[profile] = []
        for images, labels, index in _cycled(data.loaders(task, PlainBench.data_dir, "cpu").train, 20):
            run.set_rate(2.0 ** -(5 + len(losses[profile]) // 10))  # exact in either format
            value, _ = training_step.step(run, task, (images[:16].double(), labels[:16], index[:16]))
            losses[profile].append(value.item())
    assert losses["fast"] == pytest.approx(losses["published"], rel=1e-9)
    assert len(set(losses["fast"])) == 20


def _cycled(loader: data.Loader, count: int):
    epochs = (loader.epoch(number) for number in itertools.count())
    return itertools.islice(itertools.chain.from_iterable(epochs), count)


def test_a_training_on_some_images_sees_these_alone_in_both_profiles(task):
    loader = data.loaders(task, PlainBench.data_dir, "cpu").train.over(torch.arange(20, 60), "weights")
    theirs = list(published.worker_batches(loader, 1, originals.NNI, "cpu"))
    for one, other in zip(loader.epoch(1), theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    seen: list[int] = []

    class Watching(training.CrossEntropy):
        def forward(self, model, images, labels, index):
            seen.extend(index.tolist())
            return super().forward(model, images, labels, index)

    model = network.build_model(task.model, task.data.classes)
    training.fit(PlainBench(), model, data.Loaders(loader, loader.plain()), Watching(), task)
    assert sorted(seen) == sorted([*range(20, 60)] * 2)


@pytest.mark.parametrize("augment", ["crop_flip", "flip_crop", "none"])
@pytest.mark.parametrize("original", [originals.NNI, originals.REPDISTILLER])
def test_workers_make_the_very_batches_of_the_fast_profile(task, augment, original):
    task = _longer(task, augment=augment, cutout=8)
    loader = data.loaders(task, PlainBench.data_dir, "cpu").train
    state = torch.get_rng_state()
    theirs = list(published.worker_batches(loader, 3, original, "cpu"))
    assert torch.equal(torch.get_rng_state(), state), "the workers' seed came out of the global generator"
    ours = list(loader.epoch(3))
    assert [len(labels) for _, labels, _ in theirs] == [32, 32, 16]
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_published_reads_back_what_the_originals_did_and_says_how_it_ran(task, monkeypatch):
    read: list[tuple[float, float, float]] = []
    real = published.read_back
    monkeypatch.setattr(training, "read_back", lambda *tensors: read.append(real(*tensors)) or read[-1])
    task = _longer(task, 2, original="repdistiller").model_copy(update={"profile": "published"})
    assert len(data.loaders(task, PlainBench.data_dir, "cpu").test) == 2  # 40 images in batches of 32
    _, history = _train(task, PlainBench())
    assert len(read) == 6
    assert history.execution["workers"] == 8
    assert history.loss[1] == pytest.approx((32 * read[3][0] + 32 * read[4][0] + 16 * read[5][0]) / 80)
    assert history.train_acc_pct[1] == pytest.approx(100 * sum(top1 for _, top1, _ in read[3:]) / 80)
    _, other = _train(_longer(task, 2, original="nni"), PlainBench())
    assert len(read) == 6, "NNI's loop reads no accuracy back"
    assert other.loss == pytest.approx(history.loss)


def test_top1_and_top5_are_counted():
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]])
    _, top1, top5 = published.read_back(torch.tensor(0.0), logits, torch.tensor([0, 4, 5]))
    assert (top1, top5) == (1, 2)


def test_a_published_run_resumes_exactly_too(task):
    task = _longer(task, 3).model_copy(update={"profile": "published"})
    whole, _ = _train(task, PlainBench())
    bench = PlainBench(stop_at=1.5)
    with pytest.raises(KeyboardInterrupt):
        _train(task, bench)
    resumed, _ = _train(task, PlainBench(state=bench.state))
    assert _same_weights(resumed, whole)


# --- compilation -------------------------------------------------------------------------------------------------------


def test_compile_is_asked_for_and_in_the_key_only_then(task, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    _, plain = _train(task, PlainBench())
    assert (asked, plain.execution["compiled"]) == ([], False)
    compiled = task.model_copy(update={"compile": True})
    _, history = _train(compiled, PlainBench())
    assert asked == [{"dynamic": False, "options": {"fallback_random": True}}]
    assert history.execution["compiled"] is True
    assert history.loss == plain.loss
    assert "compile" not in task.identity()
    assert compiled.identity()["compile"] is True


def test_published_and_compile_exclude_each_other(task):
    with pytest.raises(ValueError, match="no original was compiled"):
        Task.model_validate({**task.model_dump(), "profile": "published", "compile": True})


@pytest.mark.slow
def test_compiled_kernels_are_kept_where_a_reboot_leaves_them():
    """Asked of a fresh process: torch writes its own place into the environment with the first optimiser."""
    code = (
        "import os, torch, benchmark.vision.training\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)\n"
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip().endswith("full-cycle-energy-benchmark/inductor")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc: other C libraries have no mallopt")
@pytest.mark.slow
def test_freed_memory_is_kept():
    """In a process of its own: the setting is for good."""
    code = (
        "import resource, torch\n"
        "from benchmark.vision.memory import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): torch.ones(16, 1024, 1024)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "torch.set_num_threads(1)\n"
        "was, kept = faults(), keep_freed_memory()\n"
        "faults()\n"
        "print(was > 1000, kept, faults() < was / 10)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["True"] * 3


@pytest.mark.parametrize(("width", "sound"), [(8, False), (15, False), (16, True), (64, True)])
def test_narrow_strided_shortcuts_are_not_trained_in_channels_last_on_a_cpu(width, sound):
    """There oneDNN's backward writes beyond its buffer; everything else keeps the faster layout."""
    model = nn.Sequential(nn.Conv2d(width, 32, 1, stride=2), nn.Conv2d(4, 32, 1), nn.Conv2d(4, 32, 3, stride=2))
    assert training_step.safe_in_channels_last(model, "cpu") is sound
    assert training_step.safe_in_channels_last(model, "cuda:0")
