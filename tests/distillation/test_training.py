"""Methods in the training loop that all share: replayed from graphs, resumed, in both profiles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.plan.task import Model
from benchmark.vision import data, network, training, training_step
from benchmark.vision.models.repdistiller.resnet import resnet8, resnet14
from benchmark.vision.teacher import Teacher
from methods.distillation.objective import INITIAL, Objective
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, freeze_but, handed_on, shapes_of, trained_at_first
from tests.bench import PlainBench
from tests.distillation.methods import METHODS, mostly_slow
from tests.vision.fake_graph import FakeGraphs

STUDENT = Model(name="repdistiller/resnet8", builder="benchmark.vision.models.repdistiller.resnet:resnet8")


def _task(task, epochs: int, profile: str = "fast"):
    """Batches of 8 and, last, of 4."""
    recipe = task.recipe.model_copy(update={"epochs": epochs, "batch_size": 8, "lr": 1e-4, "name": "repdistiller240"})
    scale = task.scale.model_copy(update={"train_images": 20, "test_images": 10})
    return task.model_copy(update={"model": STUDENT, "recipe": recipe, "scale": scale, "profile": profile})


def _objective(name: str, student: nn.Module, batches, published: bool, initial: bool = False) -> Objective:
    torch.manual_seed(0)
    network_ = resnet14(10)
    teacher = Teacher(network_, fold=False) if published else Teacher(network_)
    labels = batches.train.images.labels
    scene = Scene(shapes_of(student), shapes_of(network_), labels, published=published)
    choice = METHODS[name]
    if choice.initial is not None:
        first = build_term(choice.initial, scene)
        if initial:
            freeze_but(student, trained_at_first(first, student))
            return Objective(teacher, first, INITIAL)
        scene = Scene(scene.student, scene.teacher, labels, published=published, prepared=handed_on(first))
    return Objective(teacher, build_term(choice.term, scene), choice.weights)


def _train(task, bench, name: str, initial: bool = False):
    training.seed_everything(0)
    model = network.build_model(task.model, task.data.classes)
    batches = data.loaders(task, bench.data_dir, bench.device)
    objective = _objective(name, model, batches, task.profile == "published", initial)
    history = training.fit(bench, model, batches, objective, task)
    return {**model.state_dict(), **{f"loss.{k}": v for k, v in objective.state_dict().items()}}, history


def _equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def contiguous(monkeypatch):
    """In channels_last a replay may choose other layouts, hence other kernels, than autograd did: only nearly equal."""
    monkeypatch.setattr(training_step, "safe_in_channels_last", lambda model, device: False)


@pytest.mark.usefixtures("contiguous")
@pytest.mark.parametrize("name", mostly_slow(METHODS, ("kd",)))
def test_replayed_steps_train_as_eager_ones_do(name, task, monkeypatch):
    """Every method runs in the captured graph of the fast profile: whatever one did on the host would be frozen."""
    wanted, eager = _train(_task(task, 6), PlainBench(), name)
    graphs = FakeGraphs()
    monkeypatch.setattr(training, "graph_backend", lambda device: graphs)
    found, history = _train(_task(task, 6), PlainBench(), name)
    assert (history.execution["no_graph_because"], history.execution["graphs"]) == ("", [4, 8])
    assert graphs.replays > 0
    assert history.loss == eager.loss
    assert _equal(found, wanted)


@pytest.mark.usefixtures("contiguous")
@pytest.mark.parametrize("name", mostly_slow(["ab", "ft", "fsp"], ()))
def test_so_do_those_of_initial_stages(name, task, monkeypatch):
    wanted, eager = _train(_task(task, 4), PlainBench(), name, initial=True)
    graphs = FakeGraphs()
    monkeypatch.setattr(training, "graph_backend", lambda device: graphs)
    found, history = _train(_task(task, 4), PlainBench(), name, initial=True)
    assert history.execution["no_graph_because"] == ""
    assert history.loss == eager.loss
    assert _equal(found, wanted)


class GpuBench(PlainBench):
    device = "cuda:0"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "initial"), [*((n, False) for n in METHODS), *((n, True) for n in ("ab", "ft", "fsp"))]
)
def test_on_a_gpu_real_graphs_train_as_eager_steps_do(name, initial, task, monkeypatch):
    """What the fake lets pass (a nonzero, an index by a mask, a copy from the host) a real capture refuses."""
    plain = _task(task, 6)
    found, history = _train(plain, GpuBench(), name, initial)
    assert (history.execution["no_graph_because"], history.execution["graphs"]) == ("", [4, 8])
    monkeypatch.setattr(training, "graph_backend", lambda device: None)
    _, eager = _train(plain, GpuBench(), name, initial)
    assert history.loss == pytest.approx(eager.loss, rel=1e-3)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


@pytest.mark.parametrize("name", mostly_slow(["crd", "kd", "nst", "fsp"], ("crd",)))
def test_the_published_profile_trains(name, task):
    found, history = _train(_task(task, 1, "published"), PlainBench(), name)
    assert len(history.loss) == 1
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_why_no_graph():
    """In the published profile nothing is captured; of the terms, CRD's original way alone could not be."""
    student, teacher = (shapes_of(network_(10)) for network_ in (resnet8, resnet14))
    for name, choice in METHODS.items():
        for published in (False, True):
            scene = Scene(student, teacher, torch.arange(20) % 10, published=published)
            if choice.initial is not None:
                first = build_term(choice.initial, scene)
                assert first.capturable
                scene = Scene(student, teacher, scene.labels, published=published, prepared=handed_on(first))
            assert build_term(choice.term, scene).capturable == (not published or name not in ("crd", "crd_kd"))
