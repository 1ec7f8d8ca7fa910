"""What the papers promise of their losses, and where gradients go."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmark.vision.models.repdistiller.resnet import resnet8, resnet14
from benchmark.vision.teacher import Teacher
from methods.distillation import ab, at, cc, crd, dist, dkd, fitnet, fsp, ft, kd, nst, pkt, reviewkd, rkd, sp, vid
from methods.distillation.logit_standardisation import standardise
from methods.distillation.objective import INITIAL, Objective
from methods.distillation.term import Answers, Scene
from methods.distillation.wiring import build_term, freeze_but, handed_on, shapes_of, trained_at_first
from tests.distillation.methods import METHODS, mostly_slow, term

LABELS = torch.tensor([1, 0, 4, 2, 2, 3])


def _tensor(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.rand(*shape, dtype=torch.float64)


def _dist(s, t):
    inter, intra = dist.relations(s, t, 4)
    return inter + intra


FORMULAS = {
    "kd": ((6, 5), lambda s, t: kd.divergence(s, t, 4)),
    "dkd target": ((6, 5), lambda s, t: dkd.target_class(s, t, LABELS, 4)),
    "dkd others": ((6, 5), lambda s, t: dkd.other_classes(s, t, LABELS, 4)),
    "dist": ((6, 5), _dist),
    "kd_ls": ((6, 5), lambda s, t: kd.divergence(standardise(s), standardise(t), 2)),
    "fitnet": ((6, 4, 5, 5), fitnet.hint),
    "at": ((6, 4, 5, 5), at.attention),
    "sp": ((6, 4, 5, 5), sp.similarity),
    "cc": ((6, 9), cc.correlation),
    "rkd distance": ((6, 9), rkd.distance_loss),
    "rkd angle": ((6, 9), rkd.angle_loss),
    "pkt": ((6, 9), pkt.transfer),
    "nst": ((6, 4, 5, 5), lambda s, t: nst.selectivity(s, t, False)),
    "ft": ((6, 4, 5, 5), ft.transfer),
    "fsp": ((6, 4, 5, 5), lambda s, t: fsp.flows([s, 2 * s], [t, 2 * t], False)),
    "reviewkd": ((6, 4, 5, 5), reviewkd.hierarchical),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_nothing_to_learn_from_an_equal(name):
    shape, formula = FORMULAS[name]
    equal = _tensor(*shape)
    student = equal.clone().requires_grad_()
    value = formula(student, equal)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-4)  # DIST's eps leaves some
    assert student.grad.abs().max() < 1e-4
    for seed in range(5):
        torch.manual_seed(seed)
        assert formula(equal + 0.3 * torch.randn_like(equal), equal) > value + 1e-9


def test_vid_is_least_at_the_teacher_and_at_the_true_variance():
    torch.manual_seed(0)
    teacher, noise = torch.randn(64, 2, 6, 6).double(), torch.randn(64, 2, 6, 6).double()
    mean = teacher.clone().requires_grad_()
    scale = torch.zeros(2, dtype=torch.float64)
    vid.negative_log_likelihood(mean, scale, teacher).backward()
    assert mean.grad.abs().max() == 0
    variances = torch.linspace(-3, 8, 200, dtype=torch.float64)
    values = [vid.negative_log_likelihood(teacher + 2 * noise, v.expand(2), teacher) for v in variances]
    best = functional.softplus(variances[int(torch.stack(values).argmin())])
    assert best == pytest.approx((2 * noise).pow(2).mean().item(), rel=0.05)


def test_boundaries_ask_for_the_margin_on_the_teachers_side_only():
    teacher = torch.tensor([[-3.0, -1.0, 2.0, 5.0]])
    assert ab.boundaries(torch.tensor([[-1.0, -7.0, 1.5, 4.0]]), teacher, 1.0) == 0
    assert ab.boundaries(torch.tensor([[0.0, -7.0, 0.0, 4.0]]), teacher, 1.0) == 2
    assert ab.boundaries(torch.tensor([[2.0, -7.0, -1.0, 4.0]]), teacher, 1.0) == 9 + 4


def test_contrast_prefers_the_image_itself():
    memory = functional.normalize(torch.eye(6, 4, dtype=torch.float64) + 0.1)
    contrast = torch.tensor([[0, 1, 2, 3]])
    right, wrong = (crd.dense(memory[[k]], memory, contrast, torch.tensor(6.0).double(), 0.5) for k in (0, 1))
    assert right < wrong


def test_dkd_weighed_by_the_teachers_doubt_is_kd():
    s, t = 8 * _tensor(6, 5), 8 * _tensor(6, 5).flip(0)
    doubt = 1 - functional.softmax(t / 4, 1)[torch.arange(6), LABELS]
    each = torch.stack([dkd.other_classes(s[[k]], t[[k]], LABELS[[k]], 4) for k in range(6)])
    total = dkd.target_class(s, t, LABELS, 4) + (doubt * each).mean()
    assert total.item() == pytest.approx(kd.divergence(s, t, 4).item(), rel=1e-12)


def test_a_sure_teacher_costs_no_digits():
    s, t = torch.zeros(1, 3), torch.tensor([[200.0, 0.0, -1.0]])
    values = [dkd.target_class(s, t, torch.tensor([0]), 4), dkd.other_classes(s, t, torch.tensor([0]), 4)]
    wide = [part(s.double(), t.double(), torch.tensor([0]), 4) for part in (dkd.target_class, dkd.other_classes)]
    assert [v.item() for v in values] == pytest.approx([w.item() for w in wide], rel=1e-4)


def test_constant_rows_count_nothing_in_dist_and_equal_rows_give_no_nan_in_rkd_and_pkt():
    flat = torch.zeros(4, 3, requires_grad=True)
    inter, intra = dist.relations(flat, torch.randn(4, 3), 4)
    assert (inter.item(), intra.item()) == (1, 1)
    for formula in (rkd.distance_loss, rkd.angle_loss, pkt.transfer):
        value = formula(flat, torch.randn(4, 3))
        (slope,) = torch.autograd.grad(value, [flat])
        assert torch.isfinite(value)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize(("b", "c", "size"), [(3, 4, 6), (3, 9, 2), (2, 5, 3)])
def test_kernel_of_nst_by_either_product(b, c, size):
    x, y = _tensor(b, c, size * size), _tensor(b, c + 1, size * size)
    wanted = torch.stack([torch.stack([(p @ q) ** 2 for p in x[k] for q in y[k]]) for k in range(b)]).mean()
    for broadcast in (False, True):
        assert nst.kernel(x, y, broadcast).item() == pytest.approx(wanted.item(), rel=1e-12)


# --- whole methods on two small networks ----------------------------------------------------------------------------


def _networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return resnet14(10), resnet8(10).train()


def _scene(teacher, student, **given) -> Scene:
    return Scene(shapes_of(student), shapes_of(teacher), torch.arange(40) % 10, **given)


def _objective(name: str, teacher, student, no_waste: bool = False, published: bool = False) -> Objective:
    choice, scene = METHODS[name], _scene(teacher, student, published=published)
    if choice.initial is not None:
        first = build_term(choice.initial, scene)
        scene = _scene(teacher, student, published=published, prepared=handed_on(first))
    return Objective(Teacher(teacher, fold=False), build_term(choice.term, scene), choice.weights, no_waste).train()


def _batch(count: int = 5):
    torch.manual_seed(1)
    return torch.randn(count, 3, 32, 32), torch.arange(count) % 10, torch.arange(count)


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", mostly_slow(METHODS, ("kd", "fitnet", "crd", "reviewkd")))
def test_gradients_reach_student_and_own_modules_and_the_teacher_stays(name):
    teacher, student = _networks()
    objective = _objective(name, teacher, student)
    before = _state(objective.teacher), _state(teacher)
    trained = [*student.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
    optimiser = torch.optim.SGD(trained, lr=1e-4)
    for _ in range(2):
        value, logits = objective(student, *_batch())
        assert value.shape == ()
        assert logits.shape == (5, 10)
        optimiser.zero_grad()
        value.backward()
        assert torch.isfinite(value)
        reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained]
        optimiser.step()
    assert all(reached)
    assert _same(before[0], _state(objective.teacher))
    assert _same(before[1], _state(teacher))
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    assert not any(module.training for module in objective.teacher.modules() if module is not objective.teacher)
    used = _used(objective, student)
    assert used == (name not in ("ab", "fsp")), "the main stage of AB and FSP is plain training"


def _used(objective: Objective, student: nn.Module) -> bool:
    """Whether the term itself says anything to the student."""
    student.zero_grad()
    alone = Objective(objective.teacher, objective.term, INITIAL)
    value, _ = alone(student, *_batch())
    if not value.requires_grad:
        return False
    value.backward()
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters())


@pytest.mark.parametrize("name", ["ab", "ft", "fsp"])
def test_initial_stages_train_their_own_modules_alone(name):
    teacher, student = _networks()
    first = build_term(METHODS[name].initial, _scene(teacher, student))
    freeze_but(student, trained_at_first(first, student))
    value, logits = Objective(Teacher(teacher, fold=False), first, INITIAL)(student, *_batch())
    assert logits.shape == (5, 10)
    value.backward()
    with_gradient = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    stages = {n for n, _ in student.named_parameters() if not n.startswith("classifier")}
    assert with_gradient == (set() if name == "ft" else stages)
    own = list(first.parameters())
    assert all(p.grad is not None for p in own)
    assert bool(own) == (name == "ft"), "resnets of one width need no connector"
    assert set(handed_on(first)) == (set(first.state_dict()) if name == "ft" else set())


def test_the_paraphraser_arrives_as_it_was_trained_and_stays():
    teacher, student = _networks()
    first = build_term(term("ft:Paraphrasing"), _scene(teacher, student))
    main = build_term(term("ft:FT"), _scene(teacher, student, prepared=handed_on(first)))
    assert _same(dict(main.encoder.state_dict()), dict(first.encoder.state_dict()))
    assert not any(p.requires_grad for p in main.encoder.parameters())
    assert all(p.requires_grad for p in main.translator.parameters())


@pytest.mark.parametrize("name", ["nst", "crd"])
def test_the_originals_own_work_gives_the_same_losses(name):
    teacher, student = _networks()
    losses = []
    for published in (False, True):
        torch.manual_seed(0)
        twin, objective = copy.deepcopy(student), _objective(name, teacher, student, published=published)
        objective.double()
        if name == "crd":
            contrast = torch.randint(0, 40, (5, 17))
            del objective.term.draw
            objective.term.draw = lambda labels, position, drawn=contrast: drawn
        images, labels, position = _batch()
        value, _ = objective(twin.double(), images.double(), labels, position)
        value.backward()
        losses.append([value, *(p.grad for p in twin.parameters())])
        assert objective.capturable == (name != "crd" or not published)
    for one, other in zip(*losses, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_fsp_too():
    maps = [[_tensor(4, c, size, size) for c, size in ((3, 8), (5, 8), (6, 4))] for _ in range(2)]
    maps[1] = [m.flip(0) for m in maps[1]]
    values = [fsp.flows(*maps, broadcast).item() for broadcast in (False, True)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("name", mostly_slow(METHODS, ("sp", "nst", "crd", "dist", "kd_ls")))
def test_under_autocast_formulas_stay_in_float32(name):
    teacher, student = _networks()
    objective, batch = _objective(name, teacher, student), _batch()
    plain = copy.deepcopy(objective)
    torch.manual_seed(0)
    exact, _ = plain(copy.deepcopy(student), *batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = objective(student, *batch)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.1)


def test_middle_leaves_out_stem_and_pooled_vector():
    answers = Answers([torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.zeros(2, 3)], torch.zeros(2, 5))
    assert [m.shape for m in answers.middle] == [(2, 3, 4, 4)]
    assert torch.equal(answers.middle[0], torch.ones(2, 3, 4, 4))
    assert answers.pooled.shape == (2, 3)
