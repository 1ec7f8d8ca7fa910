"""Every method as its YAML has it, in words of the tests' own, and the published pairs."""

from __future__ import annotations

import pytest

from methods.distillation.params import Choice, TermChoice, Weights

PAIRS = [
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
    ("vgg13", "MobileNetV2"),
    ("ResNet50", "MobileNetV2"),
    ("ResNet50", "vgg8"),
    ("resnet32x4", "ShuffleV1"),
    ("resnet32x4", "ShuffleV2"),
    ("wrn_40_2", "ShuffleV1"),
]


def mostly_slow(every, quick):
    """Parameters of which only some run in `make test`."""
    return [one if one in quick else pytest.param(*_row(one), marks=pytest.mark.slow) for one in every]


def _row(one):
    return one if isinstance(one, tuple) else (one,)


def term(kind: str, **settings) -> TermChoice:
    return TermChoice(kind=f"methods.distillation.{kind}", settings=settings)


def _older(kind: str, weight: float, initial: TermChoice | None = None, **settings) -> Choice:
    return Choice(term=term(kind, **settings), weights=Weights(ce=1, kd=0, term=weight), initial=initial)


def _newer(kind: str, weight: float = 1, ramp: int = 0, ce: float = 1, **settings) -> Choice:
    return Choice(term=term(kind, **settings), weights=Weights(ce=ce, term=weight, ramp_epochs=ramp))


FEW = 16
"""Negatives of CRD in tests that say nothing about their number."""
METHODS = {
    "kd": _newer("kd:KD", 0.9, ce=0.1),
    "fitnet": _older("fitnet:FitNet", 100),
    "at": _older("at:AT", 1000),
    "sp": _older("sp:SP", 3000),
    "cc": _older("cc:CC", 0.02),
    "vid": _older("vid:VID", 1),
    "rkd": _older("rkd:RKD", 1),
    "pkt": _older("pkt:PKT", 30_000),
    "ab": _older("ab:Afterwards", 1, term("ab:AB")),
    "ft": _older("ft:FT", 200, term("ft:Paraphrasing")),
    "fsp": _older("fsp:Afterwards", 50, term("fsp:FSP")),
    "nst": _older("nst:NST", 50),
    "crd": _older("crd:CRD", 0.8, negatives=FEW),
    "crd_kd": Choice(term=term("crd:CRD", negatives=FEW), weights=Weights(kd=1, term=0.8)),
    "dkd": _newer("dkd:DKD", ramp=20),
    "dist": _newer("dist:DIST", 2),
    "kd_ls": _newer("logit_standardisation:StandardisedKD", 9, ce=0.1, temperature=2),
    "dkd_ls": _newer("logit_standardisation:StandardisedDKD", 9, ramp=20, temperature=2),
    "reviewkd": _newer("reviewkd:ReviewKD", 5, ramp=20),
}
