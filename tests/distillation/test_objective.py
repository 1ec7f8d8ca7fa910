"""The whole loss: weights, what is left out without waste, the ramp, and quirks of the original that change results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.vision.models.repdistiller.resnet import resnet8
from benchmark.vision.models.repdistiller.wrn import wrn_16_1
from benchmark.vision.teacher import Teacher
from methods.distillation.kd import divergence
from methods.distillation.objective import INITIAL, Objective
from methods.distillation.params import Weights
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, handed_on, shapes_of
from tests.distillation.methods import METHODS, mostly_slow, term


class Counting(nn.Module):
    """A network that counts how often it is asked, and for what."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked = network, []

    def forward(self, images):
        self.asked.append("logits")
        return self.network(images)

    def features(self, images, preact=False):
        self.asked.append("preactivations" if preact else "features")
        return self.network.features(images, preact)

    def feature_modules(self):
        return self.network.feature_modules()


def _batch(count: int = 4):
    torch.manual_seed(1)
    return torch.randn(count, 3, 32, 32), torch.arange(count), torch.arange(count)


def _pair(build=resnet8):
    torch.manual_seed(0)
    return Counting(build(10)).eval(), Counting(build(10)).train()


def _objective(name: str, teacher, student, no_waste: bool, initial: bool = False) -> Objective:
    choice, scene = METHODS[name], Scene(shapes_of(student.network), shapes_of(teacher.network), torch.arange(40) % 10)
    torch.manual_seed(2)
    if choice.initial is not None:
        first = build_term(choice.initial, scene)
        if initial:
            return Objective(Teacher(teacher, fold=False), first, INITIAL, no_waste)
        scene = Scene(scene.student, scene.teacher, scene.labels, prepared=handed_on(first))
    return Objective(Teacher(teacher, fold=False), build_term(choice.term, scene), choice.weights, no_waste)


def _asked(name: str, no_waste: bool, initial: bool = False):
    teacher, student = _pair()
    objective = _objective(name, teacher, student, no_waste, initial)
    value, logits = objective(student, *_batch())
    assert logits.shape == (4, 10)
    return objective.teacher.module.asked, student.asked, value


@pytest.mark.parametrize(
    ("name", "initial", "shipped", "lean"),
    [
        pytest.param("kd", False, (["logits"], ["logits"]), (["logits"], ["logits"]), marks=pytest.mark.slow),
        pytest.param("at", False, (["features"], ["features"]), (["features"], ["features"]), marks=pytest.mark.slow),
        ("ab", True, (["preactivations"], ["preactivations"]), (["preactivations"], ["preactivations"])),
        ("ab", False, (["preactivations"], ["preactivations"]), ([], ["preactivations"])),
        pytest.param("fsp", True, (["features"], ["features"]), (["features"], ["features"]), marks=pytest.mark.slow),
        pytest.param("fsp", False, (["features"], ["features"]), ([], ["features"]), marks=pytest.mark.slow),
        ("ft", True, (["features"], ["features"]), (["features"], [])),
        pytest.param("ft", False, (["features"], ["features"]), (["features"], ["features"]), marks=pytest.mark.slow),
        pytest.param(
            "reviewkd",
            False,
            (["preactivations"], ["features"]),
            (["preactivations"], ["features"]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_who_is_asked(name, initial, shipped, lean):
    assert _asked(name, False, initial)[:2] == shipped
    assert _asked(name, True, initial)[:2] == lean


@pytest.mark.parametrize("name", mostly_slow(METHODS, ("ab", "crd")))
def test_without_waste_training_is_the_same(name):
    found = []
    for no_waste in (False, True):
        teacher, student = _pair()
        objective = _objective(name, teacher, student, no_waste)
        torch.manual_seed(3)  # CRD draws
        value, _ = objective(student, *_batch())
        value.backward()
        found.append((value, [p.grad for p in student.parameters()], dict(student.named_buffers())))
    (one, slopes, kept), (other, more_slopes, more_kept) = found
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(slopes, more_slopes, strict=True))
    assert all(torch.equal(kept[key], more_kept[key]) for key in kept)


@pytest.mark.parametrize(
    ("name", "kl"), [("at", True), ("ab", True), ("kd", False), ("dkd", False), ("reviewkd", False)]
)
def test_the_divergence_that_repdistiller_weighs_with_zero(name, kl, monkeypatch):
    calls = []

    def counted(*given):
        calls.append(given)
        return divergence(*given)

    monkeypatch.setattr("methods.distillation.objective.divergence", counted)
    _asked(name, no_waste=False)
    assert bool(calls) == kl
    calls.clear()
    _asked(name, no_waste=True)
    assert calls == []


@pytest.mark.parametrize("no_waste", [False, True])
def test_a_wide_resnet_learns_its_statistics_twice_a_step_in_ab(no_waste):
    teacher, student = _pair(wrn_16_1)
    _objective("ab", teacher, student, no_waste)(student, *_batch())
    counts = {name: int(b) for name, b in student.network.named_buffers() if name.endswith("num_batches_tracked")}
    twice = {name.rpartition(".")[0] for name, count in counts.items() if count == 2}
    assert twice == {"groups.1.0.bn1", "groups.2.0.bn1", "bn"}


def test_the_main_stage_of_ab_and_fsp_is_cross_entropy():
    for name in ("ab", "fsp"):
        teacher, student = _pair()
        images, labels, position = _batch()
        twin = copy.deepcopy(student)
        value, logits = _objective(name, teacher, student, False)(student, images, labels, position)
        assert torch.equal(value, functional.cross_entropy(logits, labels))
        functional.cross_entropy(twin.network(images), labels).backward()
        value.backward()
        for ours, plain in zip(student.parameters(), twin.parameters(), strict=True):
            assert torch.equal(ours.grad, plain.grad)


@pytest.mark.parametrize(("name", "wanted"), [("dkd", [1 / 20, 0.5, 1, 1]), ("at", [1, 1, 1, 1])])
def test_the_ramp_is_told_by_the_epoch_and_stays_in_place(name, wanted):
    teacher, student = _pair()
    objective = _objective(name, teacher, student, True)
    address = objective.ramp.data_ptr()
    alone = Objective(objective.teacher, objective.term, INITIAL)(student, *_batch())[0]
    for epoch, share in zip((0, 9, 19, 150), wanted, strict=True):
        objective.begin_epoch(epoch)
        value, logits = objective(student, *_batch())
        rest = functional.cross_entropy(logits, _batch()[1])
        assert (value - rest).item() == pytest.approx(share * objective.weight * alone.item(), rel=1e-4)
    assert objective.ramp.data_ptr() == address


def test_weights_as_repdistiller_sums_them():
    teacher, student = _pair()
    scene = Scene(shapes_of(student.network), shapes_of(teacher.network), torch.arange(40) % 10)
    relational, (images, labels, position) = build_term(term("rkd:RKD"), scene), _batch()
    sums = Objective(Teacher(teacher, fold=False), relational, Weights(ce=0.3, kd=0.5, term=2))
    value, logits = sums(student, images, labels, position)
    alone = Objective(Teacher(teacher, fold=False), relational, INITIAL)(student, images, labels, position)[0]
    with torch.no_grad():
        soft = divergence(logits, teacher(images), 4)
    assert value.item() == pytest.approx(
        (0.3 * functional.cross_entropy(logits, labels) + 0.5 * soft + 2 * alone).item()
    )


def test_a_weight_left_open_is_refused():
    teacher, student = _pair()
    scene = Scene(shapes_of(student.network), shapes_of(teacher.network), torch.arange(40) % 10)
    with pytest.raises(ValueError, match="for_pair"):
        Objective(Teacher(teacher, fold=False), build_term(term("rkd:RKD"), scene), Weights(term=None))


@pytest.mark.parametrize("name", mostly_slow(["kd", "at", "reviewkd", "crd"], ("reviewkd",)))
def test_the_folded_teacher_teaches_the_same(name):
    torch.manual_seed(0)
    teacher, student = wrn_16_1(10).double().eval(), wrn_16_1(10).double().train()
    scene = Scene(shapes_of(student), shapes_of(teacher), torch.arange(40) % 10)
    loss = build_term(METHODS[name].term, scene).double()
    images, labels, position = _batch()
    values = []
    for frozen in (Teacher(teacher, fold=False), Teacher(teacher)):
        torch.manual_seed(3)
        alone = Objective(frozen, copy.deepcopy(loss), INITIAL)
        values.append(alone(copy.deepcopy(student), images.double(), labels, position)[0].item())
    assert values[0] == pytest.approx(values[1], rel=1e-8)


def test_a_plain_teacher_stays_in_eval_mode_and_is_a_copy():
    teacher = resnet8(10).train()
    plain = Teacher(teacher, fold=False)
    plain.train()
    assert not any(module.training for module in plain.module.modules())
    assert teacher.training
    assert all(p.requires_grad for p in teacher.parameters())
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    assert not plain.logits(images).requires_grad
    assert not any(f.requires_grad for f in plain.features(images)[0])
