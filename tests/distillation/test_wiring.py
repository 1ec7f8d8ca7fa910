"""Which method exists for which pair of networks, through modules of which size; refusals come before any training."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from benchmark.vision.models.nni import vgg as nni_vgg
from methods.distillation.params import Choice, TermChoice, Tuned, Weights
from methods.distillation.term import Scene
from methods.distillation.wiring import build_term, rehearse, shapes_of
from tests.distillation.golden import network
from tests.distillation.methods import METHODS, PAIRS, mostly_slow, term

# of each pair: regressor of FitNet, VID, CC, connectors of AB, translator and paraphraser of FT, ReviewKD
# sources: distillation.md, section 3, and newer_methods.md, section 4 (None: not measured there)
EXTRA = {
    "wrn_40_2__wrn_16_2": (4_288, 64_736, 33_024, 0, 258_816, 516_672, 453_830),
    "wrn_40_2__wrn_40_1": (2_240, 53_984, 24_832, 11_424, 111_168, 516_672, 216_006),
    "resnet56__resnet20": (1_120, 16_240, 16_640, 0, 64_896, 129_312, 114_278),
    "resnet110__resnet20": (1_120, 16_240, 16_640, 0, 64_896, 129_312, None),
    "resnet110__resnet32": (1_120, 16_240, 16_640, 0, 64_896, 129_312, 114_278),
    "resnet32x4__resnet8x4": (16_768, 258_496, 65_792, 0, 1_033_728, 2_065_536, 1_808_774),
    "vgg13__vgg8": (66_304, 1_820_032, 131_328, 0, 4_131_840, 8_259_840, 9_847_560),
    "vgg13__MobileNetV2": (4_864, 1_325_952, 229_632, 1_345_152, 1_190_880, 8_259_840, 9_640_712),
    "ResNet50__MobileNetV2": (132_608, 11_533_056, 426_240, 6_221_056, 11_148_768, 132_129_792, 27_933_192),
    "ResNet50__vgg8": (2_098_688, 12_881_664, 327_936, 12_070_144, 16_522_752, 132_129_792, 28_140_040),
    "resnet32x4__ShuffleV1": (983_424, 495_040, 155_904, 5_162_304, 9_551_424, 2_065_536, 4_607_366),
    "resnet32x4__ShuffleV2": (475_520, 328_384, 164_096, 2_495_808, 2_621_808, 2_065_536, 4_195_718),
    "wrn_40_2__ShuffleV1": (491_712, 204_512, 139_520, 2_581_152, 8_887_488, 516_672, 2_984_646),
}
SAME_CHANNELS = {f"{t}__{s}" for t, s in PAIRS[:7]} - {"wrn_40_2__wrn_40_1"}
"""Where FSP exists."""


@cache
def _meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return network(name)


@cache
def _shapes(network: nn.Module):
    return shapes_of(network)


def _scene(teacher: nn.Module, student: nn.Module) -> Scene:
    return Scene(_shapes(student), _shapes(teacher), torch.arange(40) % 4)


def _size(kind: str, scene: Scene) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_term(term(kind), scene).parameters() if p.requires_grad)


QUICK = [("resnet32x4", "ShuffleV2")]


@pytest.mark.parametrize(("teacher", "student"), mostly_slow(PAIRS, QUICK))
def test_extra_modules_have_the_published_sizes(teacher, student):
    scene = _scene(_meta(teacher), _meta(student))
    kinds = ("fitnet:FitNet", "vid:VID", "cc:CC", "ab:AB", None, "ft:Paraphrasing", "reviewkd:ReviewKD")
    wanted = EXTRA[f"{teacher}__{student}"]
    for kind, size in zip(kinds, wanted, strict=True):
        if kind is not None and size is not None:
            assert _size(kind, scene) == size, kind
    assert _size("crd:CRD", scene) == wanted[2], "CRD embeds as CC does"
    with torch.device("meta"):
        paraphraser = build_term(term("ft:Paraphrasing"), scene).state_dict()
        main = build_term(term("ft:FT"), Scene(scene.student, scene.teacher, scene.labels, prepared=paraphraser))
    assert sum(p.numel() for p in main.parameters() if p.requires_grad) == wanted[4]


def _rehearse(teacher: str, student: str, method: str) -> None:
    rehearse(METHODS[method], _scene(_meta(teacher), _meta(student)), 100)


@pytest.mark.parametrize(("teacher", "student"), mostly_slow([("resnet14", "resnet8"), *PAIRS], QUICK))
def test_every_method_exists_for_every_pair_but_fsp(teacher, student):
    for method in METHODS:
        if method == "fsp" and f"{teacher}__{student}" not in {*SAME_CHANNELS, "resnet14__resnet8"}:
            with pytest.raises(ValueError, match=r"FSP compares maps channel by channel, but the student has \["):
                _rehearse(teacher, student, method)
        else:
            _rehearse(teacher, student, method)


@pytest.mark.parametrize("method", ["ab", "fsp", "reviewkd"])
def test_unequally_many_stages_are_refused_where_none_may_be_left_out(method):
    with pytest.raises(ValueError, match="student and teacher have 3 and 4 stages"):
        _rehearse("vgg13", "resnet8", method)


@pytest.mark.parametrize("method", ["at", "nst", "vid"])
def test_elsewhere_the_last_stages_are_left_out_as_shipped(method):
    scene = _scene(_meta("vgg13"), _meta("resnet8"))
    assert (len(scene.student), len(scene.teacher)) == (5, 6)
    assert _rehearse("vgg13", "resnet8", method) is None


def test_a_hint_between_maps_that_no_convolution_joins_is_refused():
    ours, theirs = ((8, 32, 32), (8, 4, 4), (8, 4, 4), (8,)), ((8, 32, 32), (8, 16, 16), (8, 16, 16), (8,))
    with pytest.raises(ValueError, match="no convolution turns a 4x4 map into a 16x16 map"):
        build_term(term("fitnet:FitNet"), Scene(ours, theirs, torch.arange(4)))


def test_networks_without_features_do_for_losses_of_logits_alone():
    with torch.device("meta"):
        plain = nni_vgg.vgg13(100)
    assert shapes_of(plain) == ()
    labels = torch.arange(40) % 4
    rehearse(METHODS["kd"], Scene((), (), labels), 100)
    with pytest.raises(ValueError, match="AT needs features, but the student exposes none"):
        rehearse(METHODS["at"], Scene((), (), labels), 100)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (term("kd:KD", temprature=4), "settings of methods.distillation.kd:KD: temprature: Extra inputs"),
        (term("kd:KD", temperature=0), "temperature: Input should be greater than 0"),
        (term("kd:KT"), "methods.distillation.kd has no term of that name"),
        (term("kd:divergence"), "has no term of that name"),
        (term("nowhere:KD"), "No module named"),
        (term("fitnet:FitNet", layer=4), "layer=4: choose at most 3"),
        (term("ft:FT"), "needs the paraphraser"),
    ],
)
def test_refusals_name_the_cause(choice, words):
    with pytest.raises(ValueError, match=words):
        build_term(choice, _scene(_meta("resnet14"), _meta("resnet8")))


def test_a_kind_is_a_dotted_name():
    with pytest.raises(ValueError, match="kind"):
        TermChoice(kind="os.system")


def test_what_was_tuned_for_a_pair_fills_what_was_left_open():
    tuned = {
        "vgg13__vgg8": Tuned(settings={"beta": 6}),
        "others": Tuned(weight=2, settings={"beta": 8, "temperature": 3}),
    }
    open_ = Choice(term=term("dkd:DKD", alpha=1, beta=None, temperature=None), weights=Weights(term=None), tuned=tuned)
    here, elsewhere = open_.for_pair("vgg13", "vgg8"), open_.for_pair("resnet56", "resnet20")
    assert here.term.settings == {"alpha": 1, "beta": 6, "temperature": 3}
    assert elsewhere.term.settings == {"alpha": 1, "beta": 8, "temperature": 3}
    assert (here.weights.term, elsewhere.weights.term, here.tuned) == (2, 2, {})
    given = Choice(term=term("dkd:DKD", beta=1), weights=Weights(term=5), tuned=tuned).for_pair("vgg13", "vgg8")
    assert (given.term.settings, given.weights.term) == ({"beta": 1}, 5), "what a user gives holds"
    nothing = Choice(term=term("dkd:DKD", beta=None), weights=Weights(term=None))
    with pytest.raises(ValueError, match=r"weights.term, beta: nothing is tuned for vgg13 -> vgg8"):
        nothing.for_pair("vgg13", "vgg8")
