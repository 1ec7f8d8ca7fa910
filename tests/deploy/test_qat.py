"""Quantization-aware training: it trains where the engine quantizes, and hands on what the engine is built from."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from benchmark.deploy.build import build_engine
from benchmark.deploy.export import export
from benchmark.deploy.graphs import quantized
from benchmark.deploy.ort import session_options
from benchmark.deploy.points import ANSWERS, points
from benchmark.deploy.quantization.placement import targets
from benchmark.deploy.quantization.scales import weight_scales
from benchmark.energy import find_device
from benchmark.plan import config
from benchmark.plan.deployment import Build, EngineError
from benchmark.plan.stage import Network, Output, Phase
from benchmark.plan.task import Model
from benchmark.records.book import Book
from benchmark.records.store import Store
from benchmark.report.rows import stage_rows
from benchmark.report.summary import summarise
from benchmark.vision import training
from benchmark.vision.graph import WARM_UP
from benchmark.vision.loss import CrossEntropy
from benchmark.vision.modes import evaluating
from benchmark.vision.network import build_model, load
from methods.quantization import stages
from methods.quantization.aware import Aware, QuantizationAware, Simulating
from methods.quantization.fake import FakeQuantized, LearnedRange, ObservedRange
from methods.quantization.post_training import Quantization
from tests.bench import MeteredBench, PlainBench
from tests.deploy.exported import DATA, RECIPE, RESNET, SCALE, exported, network
from tests.harness.helpers import here_of, lives_of, tiny_experiment, work_all
from tests.vision.fake_graph import FakeGraphs

DEVICE = find_device("cpu")


@functools.cache
def _points(of):
    return points(network(of))


@pytest.fixture(autouse=True)
def _found_once(monkeypatch):
    """An export takes seconds, and places depend on the structure alone."""
    monkeypatch.setattr(
        stages, "points", lambda given: _points("resnet") if given.builder == RESNET.builder else points(given)
    )


@pytest.fixture
def resnet(task):
    recipe = RECIPE.model_copy(update={"epochs": 3, "lr": 5e-4, "schedule": "constant"})
    return task.model_copy(update={"model": RESNET, "recipe": recipe, "data": DATA, "scale": SCALE})


@pytest.fixture
def given():
    return Output(network=network("resnet"), values={"acc_pct": 10.0})


def _simulating(scales="observed", layout="trt", of="resnet"):
    module = load(network(of))
    return module, FakeQuantized(module, _points(of), scales, layout, 0.01)


def _seen(simulating, times=3):
    """After a few batches, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    simulating.train()
    simulating.freeze_batch_norm(True)
    with torch.no_grad():
        for _ in range(times):
            simulating(torch.randn(16, 3, 32, 32, generator=generator))
    return simulating.eval()


def test_every_place_of_the_engine_is_found_again_in_torchs_graph():
    import onnx

    wanted = targets(onnx.load_from_string(exported("resnet")))
    found = _points("resnet")
    assert set(found.tensors()) == set(wanted.all)
    assert [point.weight for point in found.layers] == list(wanted.weights)
    assert {point.tensor for point in found.branches if not point.shared} == set(wanted.own)
    folded = {point.layer: point.norm for point in found.layers}
    assert folded["conv1"] == "bn1"
    assert folded["classifier"] is None
    assert len(found.branches) == 2 * 3, "both branches of three additions"


@pytest.mark.parametrize("layout", ["trt", "ort"])
@pytest.mark.parametrize("scales", ["observed", "learned"])
@pytest.mark.slow
def test_it_computes_what_the_quantized_file_computes(layout, scales):
    """The network under fake quantization, and the Q/DQ file of its own scales, run as its engine runs it."""
    module, simulating = _simulating(scales, layout)
    _seen(simulating)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, plain = simulating(images).numpy(), module.eval()(images).numpy()
    made = quantized(export(network("resnet")), simulating.arrays(), layout)
    theirs = _run(made, images, optimised=layout == "ort")
    apart, effect = (np.linalg.norm(ours - other) / np.linalg.norm(plain) for other in (theirs, plain))
    assert apart < 0.2 * effect, "single codes may differ (torch multiplies where ONNX divides), and no place"
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.98


def _run(model, images, optimised):
    """As the engine of layout `ort` runs it, biases in int32; or as the file of layout `trt` stands, biases in float."""
    options, level = session_options(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"images": images.numpy()})[0]


def test_the_other_layout_is_another_computation():
    _, simulating = _simulating()
    _seen(simulating)
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        trt = simulating(images)
        simulating.set_layout("ort")
        assert not torch.equal(simulating(images), trt)
        simulating.set_layout("trt")
        assert torch.equal(simulating(images), trt)


@pytest.mark.slow
def test_at_no_rate_it_is_post_training_quantization_by_the_same_scales(resnet, given):
    """Weights stay, so the file of the trained network and that of the given one are the same."""
    still = resnet.recipe.model_copy(update={"lr": 1e-30, "weight_decay": 0.0, "momentum": 0.0})
    how = Simulating(batch_norm_epochs=0)
    made = stages.train(PlainBench(), Aware(task=resnet.model_copy(update={"recipe": still}), how=how), given)
    assert all(torch.equal(made.network.tensors[name], own) for name, own in given.network.tensors.items())
    model = export(given.network)
    own = {each.name: each for each in model.graph.initializer}
    from onnx import numpy_helper

    for name, axis in targets(model).weights.items():
        calibrated = weight_scales(numpy_helper.to_array(own[name]), axis)
        assert made.arrays[f"weight.{name}"].numpy() == pytest.approx(calibrated, rel=1e-5)
    assert made.values["acc_before_pct"] == 10.0
    for layout in ("trt", "ort"):
        ours, theirs = (
            quantized(export(each.network), made.arrays, layout).SerializeToString() for each in (made, given)
        )
        assert ours == theirs


@pytest.mark.slow
def test_the_engine_answers_as_the_network_did_under_fake_quantization(resnet, given):
    made = stages.train(PlainBench(), Aware(task=resnet, how=Simulating()), given)
    assert {name for name in made.arrays if name.startswith(ANSWERS)} == {ANSWERS + "trt", ANSWERS + "ort"}
    params = Build(engine="onnxruntime", precision="int8", data=DATA, scale=SCALE)
    built = build_engine(PlainBench(), params, Output(network=made.network), made)
    assert built.values["agreement_pct"] >= 99
    scrambled = {**made.arrays, ANSWERS + "ort": (made.arrays[ANSWERS + "ort"] + 1) % 10}
    other = build_engine(PlainBench(), params, Output(network=made.network), Output(arrays=scrambled))
    assert other.values["agreement_pct"] < 50, "it is these answers that it is compared with"
    assert other.values["acc_pct"] == built.values["acc_pct"]
    short = {**made.arrays, ANSWERS + "ort": made.arrays[ANSWERS + "ort"][:5]}
    with pytest.raises(EngineError, match="5 test images"):
        build_engine(PlainBench(), params, Output(network=made.network), Output(arrays=short))


@pytest.mark.parametrize("scales", [pytest.param("observed", marks=pytest.mark.slow), "learned"])
@pytest.mark.slow
def test_broken_off_and_resumed_it_ends_with_the_same_scales_and_weights(resnet, given, scales):
    params = Aware(task=resnet, how=Simulating(scales=scales, observer_epochs=2, batch_norm_epochs=1))
    whole = stages.train(PlainBench(), params, given)
    bench = PlainBench(stop_at=2.3)
    with pytest.raises(KeyboardInterrupt):
        stages.train(bench, params, given)
    torch.manual_seed(99)
    resumed = stages.train(PlainBench(state=bench.state), params, given)
    assert whole.arrays.keys() == resumed.arrays.keys()
    assert all(torch.equal(whole.arrays[name], resumed.arrays[name]) for name in whole.arrays)
    assert all(torch.equal(whole.network.tensors[name], own) for name, own in resumed.network.tensors.items())


@pytest.mark.slow
def test_ranges_and_statistics_stop_moving_after_their_epochs(resnet, given, monkeypatch):
    seen = []
    plain = stages.Simulated.forward

    def watched(self, model, images, labels, index):
        out = plain(self, model, images, labels, index)
        part = next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d))
        ranges = [each for each in model.ranges().values() if isinstance(each, ObservedRange)]
        seen.append((part.training, part.running_mean.clone(), torch.stack([each.high for each in ranges])))
        return out

    monkeypatch.setattr(stages.Simulated, "forward", watched)
    stages.train(PlainBench(), Aware(task=resnet, how=Simulating(observer_epochs=2, batch_norm_epochs=1)), given)
    first, second, third = seen[:10], seen[10:20], seen[20:]
    assert len(third) == 10
    assert [all(step[0] for step in epoch) for epoch in (first, second, third)] == [True, False, False]
    assert torch.equal(second[0][1], third[-1][1]), "statistics stand still"
    assert not torch.equal(first[0][1], first[-1][1])
    assert not torch.equal(second[0][2], second[-1][2])
    assert torch.equal(second[-1][2], third[-1][2]), "ranges stand still"


@pytest.mark.parametrize("scales", [pytest.param("observed", marks=pytest.mark.slow), "learned"])
@pytest.mark.slow
def test_steps_are_captured_anew_where_they_change_and_train_as_eager_ones_do(resnet, given, monkeypatch, scales):
    params = Aware(task=resnet, how=Simulating(scales=scales, observer_epochs=2, batch_norm_epochs=1))
    eager = stages.train(PlainBench(), params, given)
    graphs = FakeGraphs()
    monkeypatch.setattr(training, "graph_backend", lambda device: graphs)
    replayed = stages.train(PlainBench(), params, given)
    assert (graphs.captures, graphs.replays) == (3, 3 * (10 - WARM_UP)), "three kinds of epochs, ten steps each"
    assert replayed.details["history"]["execution"]["no_graph_because"] == ""
    assert all(torch.equal(own, replayed.network.tensors[name]) for name, own in eager.network.tensors.items())
    assert all(torch.equal(own, replayed.arrays[name]) for name, own in eager.arrays.items())
    monkeypatch.setattr(stages.Simulated, "kind_of_steps", lambda self, epoch: None)
    stale = stages.train(PlainBench(), params, given)
    assert not all(torch.equal(own, stale.arrays[name]) for name, own in eager.arrays.items()), (
        "else this shows nothing"
    )


def test_learned_steps_are_trained_and_the_layers_gammas_too(resnet, given):
    torch.manual_seed(0)
    module = load(given.network)
    simulating = FakeQuantized(module, _points("resnet"), "learned", "trt", 0.01)
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
    simulating.train()
    CrossEntropy()(simulating, images, labels, labels)[0].backward()
    without = [name for name, own in simulating.named_parameters() if own.grad is None]
    assert without == []
    assert {type(each) for each in simulating.ranges().values()} == {LearnedRange, ObservedRange}, (
        "what only the other layout quantizes is observed"
    )
    assert all(own.grad is not None for own in module.parameters()), "they are the network's own"


def test_looking_for_places_and_answering_is_off_the_meter_and_training_is_on_it(resnet, given, monkeypatch):
    bench, seen = MeteredBench(), []
    for name, on in (("points", False), ("_answers", False), ("fit", True)):
        plain = getattr(stages, name)

        def watched(*words, name=name, on=on, plain=plain):
            seen.append(name)
            assert bench.running == on, name
            return plain(*words)

        monkeypatch.setattr(stages, name, watched)
    stages.train(bench, Aware(task=resnet.model_copy(update={"recipe": RECIPE})), given)
    assert seen == ["points", "fit", "_answers", "_answers"]


def test_its_plan_hands_one_stage_on_as_network_and_scales(task):
    long = task.model_copy(update={"recipe": task.recipe.model_copy(update={"epochs": 240, "lr": 0.05})})
    plan = QuantizationAware(scales="learned").plan(long)
    (_, base), (phase, trained) = plan.steps
    assert phase is Phase.RETRAIN
    assert plan.network is plan.deploy.scales is trained
    assert plan.deploy.name == "int8"
    recipe = trained.params.task.recipe
    assert (recipe.epochs, recipe.lr, recipe.final_lr, recipe.schedule) == (24, 5e-4, pytest.approx(5e-6), "cosine")
    assert (trained.params.first_epoch, trained.params.how.scales) == (240, "learned")
    assert base == Quantization(precision="int8").plan(long).steps[0][1], "the base network is shared"
    assert QuantizationAware().plan(task).network.params.task.recipe.epochs == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["deploy_precision=fp16"], "deploys int8: leave out deploy_precision=fp16"),
        (["calibration.images=32"], "quantization/qat brings its own scales"),
        (["method.scales=guessed"], "method.scales"),
        (["method.layout=nhwc"], "method.layout"),
    ],
)
def test_what_it_does_not_do_is_refused_in_words(words, message):
    with pytest.raises(config.ConfigError, match=message):
        config.parse(config.compose(["method=quantization/qat", *words]), here_of(DEVICE))


def test_autocast_is_refused_for_it_alone(task):
    with pytest.raises(ValueError, match="trains in fp32 or tf32"):
        QuantizationAware().plan(task.model_copy(update={"train_precision": "bf16"}))
    base = QuantizationAware().plan(task.model_copy(update={"base_precision": "bf16"})).steps[0][1]
    assert base.params.autocast == "bf16"


class Branching(nn.Module):
    """Its forward pass depends on the batch: it cannot be traced."""

    def __init__(self, classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 32), nn.Linear(4, classes)

    def forward(self, x):
        x = self.conv(x).flatten(1)
        return self.fc(x if len(x) > 1 else -x)


def branching(classes):
    return Branching(classes)


def test_a_network_whose_places_are_not_found_is_refused_before_training(task):
    model = Model(name="branching", builder="tests.deploy.test_qat:branching")
    with pytest.raises(ValueError, match="branching cannot be trained for INT8: "):
        QuantizationAware().check(task.model_copy(update={"model": model}))


@pytest.mark.slow
def test_a_life_has_a_retraining_row_and_no_calibration(tmp_path):
    block = {"_target_": "methods.quantization.aware.QuantizationAware", "name": "quantization/qat"}
    experiment = tiny_experiment(tmp_path).model_copy(update={"method": block, "engine": "onnxruntime"})
    store = Store(tmp_path / "results", tmp_path / "artifacts")
    work_all(tmp_path, DEVICE, lives_of(experiment, DEVICE, store))
    book = Book.read(store)
    rows = stage_rows(book)
    assert [(row.phase, row.stage) for row in rows] == [
        ("base", "train"), ("retrain", "train"), ("deploy", "build_engine"), ("infer", "inference"),
    ]  # fmt: skip  # one step a line would hide the shape
    (row,) = summarise(book, rows)
    assert row.tec_wh == pytest.approx(row.base_wh + row.retrain_wh)
    assert row.compress_wh == 0
    assert row.agreement_pct >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repdistiller/MobileNetV2", "repdistiller/ShuffleV1", "nni/vgg16", "nni/resnet50"])
def test_other_families_of_the_zoo_have_their_places(name):
    parsed, _ = config.parse(config.compose([f"model={name}", "method=quantization/qat"]), here_of(DEVICE))
    model = parsed.task.model
    torch.manual_seed(0)
    module = build_model(model, 100)
    kwargs = {**model.kwargs, "classes": 100}
    found = points(Network(model.builder, kwargs, module.state_dict(), RECIPE.mean, RECIPE.std))
    layers = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert sorted(point.layer for point in found.layers) == sorted(layers)
    simulating = FakeQuantized(module, found, "observed", "ort", 0.01).train()
    assert simulating(torch.randn(4, 3, 32, 32)).isfinite().all()


def test_it_evaluates_without_moving_anything():
    _, simulating = _simulating()
    _seen(simulating)
    before = {name: value.clone() for name, value in simulating.state_dict().items()}
    with evaluating(simulating), torch.no_grad():
        simulating(10 * torch.randn(4, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in simulating.state_dict().items())
