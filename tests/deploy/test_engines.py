"""Engines: built once, loaded as built, in the layout and with the switches that their record names."""

from __future__ import annotations

import contextlib

import pytest
import torch

from benchmark.deploy import eager
from benchmark.deploy.build import build_engine
from benchmark.deploy.engines import kind_named
from benchmark.deploy.measure import inference
from benchmark.plan.deployment import Build, BuildOrder, EngineError, Inference, Measurement
from benchmark.plan.stage import Cost, Output
from benchmark.plan.task import Data, Model, Scale
from benchmark.vision.builders import build_model
from benchmark.vision.network import freeze, load
from tests.bench import PlainBench

DATA = Data(name="synthetic", classes=10)
SCALE = Scale(name="test", train_images=20, test_images=40)
TINY = Model(name="tiny", builder="tests.tiny:tiny")


@pytest.fixture
def network(recipe):
    torch.manual_seed(0)
    return freeze(build_model(TINY, 10), TINY, 10, recipe)


def _order(network, precision="fp32", device="cpu", choose=None) -> BuildOrder:
    def never(what, decide):
        raise AssertionError("a CPU has nothing to choose")

    return BuildOrder(network, None, precision, device, choose or never)


def test_an_fp32_engine_answers_as_its_network(network):
    kind = kind_named("torch")
    engine = kind.load(kind.build(_order(network)), "cpu")
    images = torch.rand(5, 3, 32, 32)
    expected = load(network).to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(engine(engine.prepare(images)), expected)
    assert engine.executes["precision"] == "fp32"
    assert engine.executes["layout"] == "channels_last"
    assert engine.executes["switches"] == {"tf32": False, "cudnn_benchmark": False}
    assert engine.executes["library"] == f"torch {torch.__version__}"


def test_fp16_tensors_are_stored_as_they_run(network):
    built = kind_named("torch").build(_order(network, precision="fp16"))
    floats = {tensor.dtype for tensor in built.tensors.values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    images = torch.rand(4, 3, 32, 32)
    engine = kind_named("torch").load(built, "cpu")
    reference = load(network)(images)
    assert torch.allclose(engine(engine.prepare(images)).float(), reference, atol=0.02)


def test_a_precision_it_lacks_is_refused(network):
    with pytest.raises(EngineError, match="has no int8 convolutions"):
        kind_named("torch").build(_order(network, precision="int8"))


@pytest.mark.parametrize("before", [True, False])
def test_what_this_process_did_before_changes_no_switch_of_an_engine(network, before, monkeypatch):
    seen = []
    kind = kind_named("torch")
    engine = kind.load(kind.build(_order(network)), "cpu")
    original = type(engine._module).__call__

    def watch(self, images):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return original(self, images)

    monkeypatch.setattr(type(engine._module), "__call__", watch)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = before
    torch.backends.cuda.matmul.allow_tf32 = before
    engine(engine.prepare(torch.rand(1, 3, 32, 32)))
    assert seen[0] == (False, False, False)


# --- what precisions are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "device", "why"),
    [
        ("fp32", "cpu", ""),
        ("bf16", "cpu", ""),
        ("fp16", "cpu", "torch runs fp16 on a GPU only"),
        ("tf32", "cpu", "torch runs tf32 on a GPU only"),
        ("fp16", "cuda", ""),
        ("tf32", "cuda", ""),
        ("int8", "cuda", "torch has no INT8 convolutions"),
        ("int8", "cpu", "torch has no INT8 convolutions"),
    ],
)
def test_what_torch_can_do(precision, device, why):
    said = kind_named("torch").why_unavailable(precision, device)
    assert (said == "") if not why else why in said
    graphed = kind_named("torch_graph").why_unavailable(precision, device)
    assert graphed == (said if device == "cuda" else "CUDA graphs need a GPU")


def test_bf16_runs_as_bf16_and_tf32_only_where_it_was_asked_for(network, monkeypatch):
    kind = kind_named("torch")
    images = torch.rand(4, 3, 32, 32)
    half = kind.load(kind.build(_order(network, "bf16")), "cpu")
    assert half.executes["precision"] == "bf16"
    logits = half(half.prepare(images))
    assert logits.dtype == torch.bfloat16
    assert torch.allclose(logits.float(), load(network)(images), atol=0.05)
    for precision in ("fp32", "tf32"):
        built = kind.build(_order(network, precision))
        assert built.executes["switches"]["tf32"] is (precision == "tf32")
        engine = kind.load(built, "cpu")
        engine(engine.prepare(images))
        assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


class Replaying:
    """A graph backend that captures by remembering what to do."""

    def __init__(self, broken=False) -> None:
        self.captures = self.replays = self.abandoned = 0
        self.broken = broken

    def stream(self):
        return contextlib.nullcontext()

    def abandon(self):
        self.abandoned += 1

    def capture(self, work):
        if self.broken:
            raise RuntimeError("operation not permitted")
        self.captures += 1
        work()

        def replay():
            self.replays += 1
            work()

        return replay


def test_a_batch_is_captured_when_it_comes_back_and_then_replayed(network):
    graphs = Replaying()
    built = kind_named("torch_graph").build(_order(network))
    assert built.kind == "torch_graph"
    engine = eager.Replayed(built, "cpu", graphs)
    images = torch.rand(4, 3, 32, 32)
    first, second = engine.prepare(images), engine.prepare(2 * images)
    for _ in range(2):
        for batch in (first, second):
            engine(batch)
    assert graphs.captures == 0, "a pass over a test set pays for no capture"
    for _ in range(3):
        assert torch.allclose(engine(first), load(network)(images), atol=1e-5)
        assert torch.allclose(engine(second), load(network)(2 * images), atol=1e-5)
    assert (graphs.captures, graphs.replays) == (2, 6)


def test_an_engine_that_cannot_be_captured_is_an_error_and_turns_into_no_other(network):
    graphs = Replaying(broken=True)
    engine = eager.Replayed(kind_named("torch_graph").build(_order(network)), "cpu", graphs)
    batch = engine.prepare(torch.rand(1, 3, 32, 32))
    engine(batch), engine(batch)
    with pytest.raises(EngineError, match=r"cannot be captured in a CUDA graph .*choose engine=torch"):
        engine(batch)
    assert graphs.abandoned == 1
    with pytest.raises(EngineError, match="CUDA graphs need a GPU"):
        kind_named("torch_graph").load(kind_named("torch_graph").build(_order(network)), "cpu")


# --- the layout on a GPU, by trial, once ---------------------------------------------------------------------------


class Machine:
    """Keeps choices like a machine does."""

    def __init__(self, trial="contiguous") -> None:
        self.kept: dict[str, str] = {}
        self.trials = 0
        self.trial = trial

    def choose(self, what, decide):
        if what not in self.kept:
            self.trials += 1
            self.kept[what] = self.trial
        return self.kept[what]


def test_the_layout_is_tried_once_for_each_shape_and_precision_and_then_kept(network, recipe):
    machine = Machine()
    for precision in ("fp32", "fp16", "fp32"):
        built = eager.build(_order(network, precision, "cuda:0", machine.choose))
        assert built.executes["layout"] == "contiguous"
        assert built.executes["switches"]["cudnn_benchmark"]
    other = freeze(build_model(TINY, 10), TINY, 10, recipe)  # other weights, the same shape
    assert eager.build(_order(other, "fp32", "cuda:0", machine.choose)).executes["layout"] == "contiguous"
    assert machine.trials == 2
    wide = TINY.model_copy(update={"kwargs": {"width": 12}})
    eager.build(_order(freeze(build_model(wide, 10), wide, 10, recipe), "fp32", "cuda:0", machine.choose))
    assert machine.trials == 3


def test_the_trial_takes_the_faster_layout(network, monkeypatch):
    speeds = {torch.channels_last: 10.0, torch.contiguous_format: 20.0}
    monkeypatch.setattr(eager, "_speed", lambda engine: speeds[engine._format])
    assert eager._faster(_order(network)) == "contiguous"
    speeds[torch.channels_last] = 30.0
    assert eager._faster(_order(network)) == "channels_last"


def test_the_trial_really_runs(network, monkeypatch):
    monkeypatch.setattr(eager, "TRIAL_S", 0.01)
    assert eager._faster(_order(network)) in eager.LAYOUTS


def test_a_kept_layout_that_does_not_exist_is_refused(network):
    with pytest.raises(EngineError, match="the layout stored for this machine is unknown: 'sideways'"):
        eager.build(_order(network, "fp32", "cuda:0", Machine("sideways").choose))


def test_the_signature_is_what_is_executed(network):
    machine = Machine()
    contiguous = eager.build(_order(network, "fp32", "cuda:0", machine.choose)).signature
    channels_last = eager.build(_order(network)).signature
    half = eager.build(_order(network, "fp16", "cuda:0", machine.choose)).signature
    assert len({contiguous, channels_last, half}) == 3
    assert eager.build(_order(network)).signature == channels_last


# --- the stages ----------------------------------------------------------------------------------------------------


def test_building_hands_on_the_engine_its_accuracy_and_what_it_executes(network):
    bench = PlainBench()
    params = Build(engine="torch", precision="fp32", data=DATA, scale=SCALE)
    output = build_engine(bench, params, Output(network=network))
    assert output.engine.kind == "torch"
    assert output.values["n_test"] == 40
    assert output.values["params"] == 3 * 9 * 8 + 2 * 8 + 32 * 10 + 10
    assert output.details["signature"] == output.engine.signature
    assert output.details["executes"]["precision"] == "fp32"
    assert bench.pauses >= 1, "loading and testing are no building"


class CountingBench(PlainBench):
    """Pretends that a call costs 1 J."""

    def cost(self, call, n):
        for _ in range(n):
            call()
        return Cost(1.0, 0.0, 0.01, n, "nvml:counter", "A", "", {"unmeasured_s": 0.0, "cross_rel_diff": 0.0})

    @contextlib.contextmanager
    def paused(self):
        yield


def test_one_engine_can_be_measured_by_itself(network):
    built = build_engine(
        PlainBench(), Build(engine="torch", precision="fp32", data=DATA, scale=SCALE), Output(network=network)
    )
    protocol = Inference(
        idle_s=0.001, warmup_s=0.003, warmup_cap_s=0.1, window_s=0.002, windows=2, curve_window_s=0.001,
        batch_sizes=(1, 4),
    )  # fmt: skip  # one value a line would hide the shape
    params = Measurement(
        signature=built.engine.signature, data=DATA, test_images=40, engine="torch", precision="fp32", protocol=protocol
    )
    output = inference(CountingBench(), params, built)
    assert output.values["iec_joules"] == pytest.approx(0.25)
    assert output.values["batch_size"] == 4
    assert output.details["executes"]["layout"] == "channels_last"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["torch", "torch_graph"])
def test_on_a_gpu_the_engine_is_as_accurate_as_its_network(network, name, precision):
    kept: dict[str, str] = {}
    order = _order(network, precision, "cuda:0", lambda what, decide: kept.setdefault(what, decide()))
    kind = kind_named(name)
    engine = kind.load(kind.build(order), "cuda:0")
    images = torch.rand(16, 3, 32, 32)
    expected = load(network)(images)
    tolerance = {"fp32": 1e-4, "bf16": 0.1}.get(precision, 0.02)  # TF32 would miss the first by far
    batch = engine.prepare(images)
    for _ in range(5):  # the third is captured, where something is
        assert torch.allclose(engine(batch).float().cpu(), expected, atol=tolerance)
    assert set(kept.values()) <= set(eager.LAYOUTS)
