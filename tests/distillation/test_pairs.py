"""Whole teacher -> student pairs: which features each method takes, through which modules, in which modes."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import nn

from benchmark.vision.teacher import Teacher
from methods.distillation import reviewkd, vid
from methods.distillation.objective import INITIAL, Objective, look
from methods.distillation.params import TermChoice, Weights
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, freeze_but, shapes_of, trained_at_first
from tests.data import golden_inputs
from tests.distillation.golden import NETWORKS, NEWER, OLDER, TARGETS, assert_close, filled, images, network
from tests.distillation.methods import mostly_slow

KINDS = {
    "kd": "kd:KD",
    "hint": "fitnet:FitNet",
    "attention": "at:AT",
    "nst": "nst:NST",
    "similarity": "sp:SP",
    "correlation": "cc:CC",
    "vid": "vid:VID",
    "rkd": "rkd:RKD",
    "pkt": "pkt:PKT",
    "factor": "ft:FT",
    "crd": "crd:CRD",
}
EXTRA = {"hint": "hint", "correlation": "correlation", "vid": "vid", "crd": "crd"}
RECIPE = OLDER["pairs"]["_recipe"]
PAIRS = [name for name in OLDER["pairs"] if name != "_recipe"]
QUICK = ["resnet14->resnet8"]


@cache
def _filled(name: str) -> nn.Module:
    return filled(network(name))


def _networks(pair: str) -> tuple[nn.Module, nn.Module]:
    """Teacher in eval mode, student in train mode, filled; the student a copy, for its statistics move."""
    teacher, student = pair.split("->")
    return _filled(teacher).eval(), copy.deepcopy(_filled(student)).train()


def _choice(kind: str, **settings) -> TermChoice:
    return TermChoice(kind=f"methods.distillation.{kind}", settings=settings)


def _scene(pair: str, **given) -> Scene:
    teacher, student = _networks(pair)
    labels = torch.arange(given.pop("images", 10)) % 2
    return Scene(shapes_of(student), shapes_of(teacher), labels, **given)


def _value(pair: str, term: nn.Module, weights: Weights | None = None) -> torch.Tensor:
    """The term's own value for the golden batch, through the objective that trains with it."""
    teacher, student = _networks(pair)
    objective = Objective(Teacher(teacher, fold=False), term, weights or Weights(ce=None))
    with torch.no_grad():
        return objective(student, images(), TARGETS, torch.tensor(RECIPE["crd"]["index"]))[0]


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _main_term(pair: str, name: str, published: bool) -> nn.Module:
    settings: dict = {"negatives": RECIPE["crd"]["nce_k"]} if name == "crd" else {}
    prepared = {}
    if name == "factor":
        prepared = filled(build_term(_choice("ft:Paraphrasing"), _scene(pair))).float().state_dict()
    scene = _scene(pair, images=RECIPE["crd"]["n_data"], published=published, prepared=prepared)
    term = filled(build_term(_choice(KINDS[name], **settings), scene)).train()
    if name == "factor":
        filled(term.encoder)
    if name == "crd":
        contrast = torch.tensor(RECIPE["crd"]["contrast_idx"])
        for side, seed in (("student", 8), ("teacher", 9)):
            memory = golden_inputs.tensor(seed, [50, 128], -0.15, 0.15)
            getattr(term, f"memory_{side}").copy_(torch.from_numpy(memory))
        del term.draw
        term.draw = lambda labels, position: contrast
    return term


@pytest.mark.parametrize("pair", mostly_slow(PAIRS, QUICK))
@pytest.mark.parametrize("name", KINDS)
def test_main_terms(pair, name):
    wanted = OLDER["pairs"][pair]
    ways = (False, True) if name == "crd" or (name == "nst" and pair == QUICK[0]) else (False,)
    for published in ways:
        term = _main_term(pair, name, published)
        assert_close(_value(pair, term), wanted["expected"][name], NETWORKS)
    if name in EXTRA:
        assert _size(term) == wanted["extra_module_params"][EXTRA[name]]
    if name == "factor":
        assert _size(term) == wanted["extra_module_params"]["factor_translator"]


@pytest.mark.parametrize("pair", mostly_slow(PAIRS, QUICK))
def test_cross_entropy_and_weights(pair):
    wanted = OLDER["pairs"][pair]["expected"]
    ce, kd, rkd = wanted["ce"], wanted["kd"], wanted["rkd"]
    for kind, weights, total in (
        ("kd:KD", Weights(ce=1, term=0), ce),
        ("kd:KD", Weights(ce=0.1, term=0.9), 0.1 * ce + 0.9 * kd),
        ("rkd:RKD", Weights(ce=1, kd=0.5, term=2), ce + 0.5 * kd + 2 * rkd),
    ):
        found = _value(pair, build_term(_choice(kind), _scene(pair)), weights)
        assert found.item() == pytest.approx(total, rel=NETWORKS)


INITIAL_KINDS = {"ab_init": "ab:AB", "factor_init": "ft:Paraphrasing", "fsp_init": "fsp:FSP"}


@pytest.mark.parametrize("pair", mostly_slow(PAIRS, QUICK))
@pytest.mark.parametrize("name", INITIAL_KINDS)
def test_initial_terms(pair, name):
    wanted = OLDER["pairs"][pair]
    teacher, student = _networks(pair)
    if wanted["expected"][name] is None:
        with pytest.raises(ValueError, match="channel by channel"):
            build_term(_choice(INITIAL_KINDS[name]), _scene(pair))
        return
    term = filled(build_term(_choice(INITIAL_KINDS[name]), _scene(pair))).train()
    student.eval()
    for module in trained_at_first(term, student):
        module.train()
    objective = Objective(Teacher(teacher, fold=False), term, INITIAL)
    with torch.no_grad():
        value = objective(student, images(), TARGETS, TARGETS)[0]
    assert_close(value, wanted["expected"][name], NETWORKS)
    sizes = {"ab_init": "ab_connector", "factor_init": "factor_paraphraser"}
    if name in sizes:
        assert _size(term) == wanted["extra_module_params"][sizes[name]]


NEWER_KINDS = {
    "kd_T4": ("kd:KD", {"temperature": 4}),
    "dkd_alpha1_beta8_T4": ("dkd:DKD", {"alpha": 1, "beta": 8, "temperature": 4}),
    "dist_tau4": ("dist:DIST", {"temperature": 4}),
    "ls_kd_T2": ("logit_standardisation:StandardisedKD", {"temperature": 2}),
    "reviewkd": ("reviewkd:ReviewKD", {}),
}


@pytest.mark.parametrize("pair", mostly_slow([name for name in NEWER["pairs"] if name != "_recipe"], QUICK))
@pytest.mark.parametrize("name", NEWER_KINDS)
def test_newer_terms(pair, name):
    wanted = NEWER["pairs"][pair]
    kind, settings = NEWER_KINDS[name]
    term = filled(build_term(_choice(kind, **settings), _scene(pair))).train()
    assert_close(_value(pair, term), wanted["expected"][name], NETWORKS)
    if name == "reviewkd":
        assert _size(term) == wanted["extra_module_params"]
        student = _networks(pair)[1]
        with torch.no_grad():
            outputs = term.review(look(student, images(), term.student_view).features)
        assert_close(outputs, wanted["expected"]["reviewkd_abf_outputs_fine_to_coarse"], NETWORKS)


@pytest.mark.parametrize("pair", QUICK[:1])
def test_stages_of_sums(pair):
    wanted = OLDER["pairs"][pair]["expected"]
    teacher, student = _networks(pair)
    term = _main_term(pair, "vid", False)
    assert isinstance(term, vid.VID)
    with torch.no_grad():
        ours, theirs = student.features(images())[0], teacher.features(images())[0]
        stages = [r(s, t) for r, s, t in zip(term.regressors, ours[1:-1], theirs[1:-1], strict=True)]
    assert_close(stages, wanted["vid_stages"], NETWORKS)


def test_what_the_initial_stage_trains():
    twin = network("wrn_16_1")
    freeze_but(twin, trained_at_first(build_term(_choice("ab:AB"), _scene("wrn_16_2->wrn_16_1")), twin))
    frozen = {name for name, p in twin.named_parameters() if not p.requires_grad}
    assert frozen == {"bn.weight", "bn.bias", "classifier.weight", "classifier.bias"}
    freeze_but(twin, trained_at_first(build_term(_choice("ft:Paraphrasing"), _scene("wrn_16_2->wrn_16_1")), twin))
    assert not any(p.requires_grad for p in twin.parameters())


def test_review_fuses_every_level_but_the_coarsest():
    term = build_term(_choice("reviewkd:ReviewKD"), _scene("resnet14->resnet8"))
    assert isinstance(term, reviewkd.ReviewKD)
    assert [fusion.attention is None for fusion in term.fusions] == [False, False, False, True]
