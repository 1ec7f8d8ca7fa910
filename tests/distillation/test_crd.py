"""CRD: golden values over two calls, both ways to them, the order of reading and writing, and the draws."""

from __future__ import annotations

import pytest
import torch

from methods.distillation import crd
from methods.distillation.contrast import DrawOnDevice, DrawOnHost
from methods.distillation.term import Answers, Batch, Scene
from tests.distillation.golden import CASES, FLOAT32, assert_close, case, expected

TOLERANCE = 1e-6  # the file's, though the temperature's rounding is ours too
WAYS = pytest.mark.parametrize("published", [False, True], ids=["dense", "gathered"])


def _term(given, published: bool) -> crd.CRD:
    """The term of the golden case, filled."""
    shapes = [((1, 2, 2), (given[f"feat_{side}_call1"].shape[1],)) for side in "st"]
    labels = torch.arange(40) % 5
    term = crd.CRD(Scene(*shapes, labels, published=published), crd.CRD.Settings(negatives=6))
    term.to(given["memory_student"].dtype)
    with torch.no_grad():
        for side, name in (("s", "student"), ("t", "teacher")):
            getattr(term, f"memory_{name}").copy_(given[f"memory_{name}"])
            embed = getattr(term, f"embed_{name}")
            embed.weight.copy_(given[f"embed_{side}.weight"])
            embed.bias.copy_(given[f"embed_{side}.bias"])
    return term


def _call(term, given, number: int):
    """One call with the golden draws, as `forward` makes it."""
    s, t, index = (given[f"{name}_call{number}"] for name in ("feat_s", "feat_t", "index"))
    contrast = given[f"contrast_idx_call{number}"]
    term.draw = lambda labels, position: contrast
    answers = [Answers([x], torch.zeros(len(x), 2)) for x in (s, t)]
    return term(*answers, Batch(index % 5, index))


def _drawable(given, published):
    term = _term(given, published)
    del term.draw  # a module cannot be replaced by a function
    return term


@WAYS
def test_golden_values_gradients_and_memories_of_two_calls(published):
    given, wanted = case("crd"), expected("crd")
    term = _drawable(given, published)
    assert term.temperature == wanted["temperature_used"]
    for number in (1, 2):
        call = wanted[f"call{number}"]
        feature = given[f"feat_s_call{number}"]
        before = {name: getattr(term, f"memory_{name}").clone() for name in ("student", "teacher")}
        loss = _call(term, given, number)
        assert loss.shape == ()
        assert_close(loss, call["loss"], TOLERANCE)
        assert_close(term.z_student, call["Z_student"], TOLERANCE)
        assert_close(term.z_teacher, call["Z_teacher"], TOLERANCE)
        slopes = torch.autograd.grad(loss, [feature, term.embed_student.weight, term.embed_teacher.weight])
        for slope, name in zip(slopes, ("feat_s", "embed_s_weight", "embed_t_weight"), strict=True):
            assert_close(slope, call[f"grad_{name}"], TOLERANCE)
        for name in ("student", "teacher"):
            assert_close(getattr(term, f"memory_{name}"), call[f"memory_{name}_after"], TOLERANCE)
        z_s = crd.unit(term.embed_student(feature))
        assert_close(list(z_s[0, :3].detach()), call["embed_s_row0_first3"], TOLERANCE)
        contrast = given[f"contrast_idx_call{number}"]
        scores = ((before["teacher"][contrast[0]] @ z_s[0]) / term.temperature).exp() / term.z_student
        assert_close(list(scores.detach()), call["scores_student_row0"], TOLERANCE)


@WAYS
def test_both_halves(published):
    given, wanted = case("crd"), expected("crd")["call1"]
    term, score = _term(given, published), crd.gathered if published else crd.dense
    for ours, other, key in (
        ("student", "teacher", "student_anchor_term"),
        ("teacher", "student", "teacher_anchor_term"),
    ):
        anchor = crd.unit(getattr(term, f"embed_{ours}")(given[f"feat_{ours[0]}_call1"]))
        memory, z = getattr(term, f"memory_{other}"), torch.tensor(-1.0, dtype=torch.float64)
        assert_close(score(anchor, memory, given["contrast_idx_call1"], z, term.temperature), wanted[key], TOLERANCE)
        assert z.item() > 0, "the first call sets it"


@WAYS
def test_float32(published):
    given = case("crd", torch.float32)
    loss = _call(_drawable(given, published), given, 1)
    assert loss.dtype == torch.float32
    assert_close(loss, CASES["crd"]["expected_float32_loss"], FLOAT32)


def test_the_two_ways_agree_also_where_a_negative_is_drawn_twice():
    torch.manual_seed(0)
    memory = torch.rand(300, 16, dtype=torch.float64) - 0.5
    contrast = torch.randint(0, 300, (8, 200))
    assert any(len(row.unique()) < 200 for row in contrast)
    results = []
    for score in (crd.gathered, crd.dense):
        anchor = crd.unit(torch.ones(8, 16, dtype=torch.float64) + torch.arange(128).view(8, 16) % 7).requires_grad_()
        z = torch.tensor(-1.0, dtype=torch.float64)
        loss = 3 * score(anchor, memory, contrast, z, 0.07)
        results.append((loss.detach(), z, *torch.autograd.grad(loss, [anchor])))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=0)


@WAYS
def test_memories_are_written_after_they_were_read_and_only_where_images_are(published):
    given = case("crd")
    term = _drawable(given, published)
    old = {name: getattr(term, f"memory_{name}").clone() for name in ("student", "teacher")}
    first = _call(term, given, 1)
    position = given["index_call1"]
    for name, side in (("student", "s"), ("teacher", "t")):
        memory, embed = getattr(term, f"memory_{name}"), getattr(term, f"embed_{name}")
        with torch.no_grad():
            mixed = 0.5 * old[name][position] + 0.5 * crd.unit(embed(given[f"feat_{side}_call1"]))
        assert torch.allclose(memory[position], mixed / mixed.norm(dim=1, keepdim=True))
        others = torch.ones(40, dtype=torch.bool).index_fill(0, position, False)
        assert torch.equal(memory[others], old[name][others])
        assert not memory.requires_grad
    assert not torch.allclose(_call(term, given, 1), first), "the second call reads what the first wrote"


def test_the_student_learns_from_its_own_half_alone():
    given = case("crd")
    term = _drawable(given, False)
    features = [given["feat_s_call1"], given["feat_t_call1"]]
    loss = _call(term, given, 1)
    student, teacher_embed = torch.autograd.grad(loss, [features[0], term.embed_teacher.weight], retain_graph=True)
    alone = crd.unit(term.embed_student(features[0]))
    half = crd.dense(
        alone, given["memory_teacher"].detach(), given["contrast_idx_call1"], torch.tensor(-1.0).double(), 0.07
    )
    assert torch.allclose(torch.autograd.grad(half, features[:1])[0], student)
    assert teacher_embed.abs().sum() > 0


def test_first_loss_is_as_large_as_it_must_be():
    torch.manual_seed(0)
    scene = Scene(((8,),) * 3, ((8,),) * 3, torch.arange(50_000) % 100)
    term = crd.CRD(scene, crd.CRD.Settings())
    features = [torch.rand(64, 8) for _ in range(2)]
    answers = [Answers([x], torch.zeros(64, 2)) for x in features]
    position = torch.arange(64)
    loss = term(*answers, Batch(position % 100, position))
    assert loss.item() == pytest.approx(23.0, abs=0.6), "distillation.md, section 3, derives it"


DRAWS = pytest.mark.parametrize("draw", [DrawOnDevice, DrawOnHost])
LABELS = torch.tensor([3, 0, 1, 1, 2, 3, 0, 0, 2, 3, 3, 1])


@DRAWS
def test_negatives_are_distinct_images_of_other_classes(draw):
    torch.manual_seed(0)
    position = torch.tensor([0, 1, 2, 4])
    for _ in range(20):
        contrast = draw(LABELS, 8, "exact")(LABELS[position], position)
        assert contrast.shape == (4, 9)
        assert contrast.dtype == torch.int64
        assert torch.equal(contrast[:, 0], position)
        for row, label in zip(contrast[:, 1:], LABELS[position], strict=True):
            assert len(row.unique()) == 8
            assert (LABELS[row] != label).all()


@DRAWS
@pytest.mark.parametrize("negatives", [3, 40], ids=["without replacement", "with"])
def test_every_other_image_is_equally_likely(draw, negatives):
    torch.manual_seed(0)
    drawn = draw(LABELS, negatives, "exact")
    assert drawn.with_replacement == (negatives == 40)
    position, trials = torch.tensor([0, 1]), 4000
    found = torch.stack([drawn(LABELS[position], position)[:, 1:] for _ in range(trials // negatives)])
    for row in (0, 1):
        counts = torch.bincount(found[:, row].flatten(), minlength=12)
        others = LABELS[position[row]] != LABELS
        assert counts[~others].sum() == 0
        share = counts[others] / counts.sum()
        assert share == pytest.approx(1 / int(others.sum()), abs=0.03)  # six standard deviations are 0.031


def test_rows_differ_and_draws_follow_the_seed():
    draw = DrawOnDevice(torch.arange(1000) % 10, 50, "exact")
    position = torch.tensor([7, 17])
    torch.manual_seed(0)
    first, second = draw(position % 10, position), draw(position % 10, position)
    torch.manual_seed(0)
    assert torch.equal(draw(position % 10, position), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0, 1:].sort().values, first[1, 1:].sort().values)


def test_a_relaxed_positive_is_any_image_of_the_class():
    torch.manual_seed(0)
    draw, position = DrawOnDevice(LABELS, 3, "relax"), torch.tensor([0, 4])
    found = torch.stack([draw(LABELS[position], position)[:, 0] for _ in range(200)])
    for row, image in enumerate(position):
        assert set(found[:, row].tolist()) == set((LABELS[image] == LABELS).nonzero().flatten().tolist())


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        DrawOnDevice(torch.zeros(5, dtype=torch.long), 2, "exact")
