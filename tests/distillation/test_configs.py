"""The YAML files say what the papers' scripts and logs say."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from benchmark.plan.config import compose, names
from methods.distillation.params import Choice, TermChoice
from methods.distillation.wiring import kind_of
from tests.distillation.methods import METHODS, PAIRS, mostly_slow

NAMES = [name.rpartition("/")[2] for name in names("method") if name.startswith("distillation/")]
OTHER = ("resnet32x4", "ShuffleV1")
"""A pair for which DKD, standardised logits and ReviewKD have their general values."""


@cache
def _choice(name: str) -> Choice:
    words = OmegaConf.to_container(compose([f"method=distillation/{name}", "pair=vgg13__vgg8"]), resolve=True)["method"]
    assert words["name"] == f"distillation/{name}"
    return Choice.model_validate({key: words[key] for key in Choice.model_fields})


def test_there_are_as_many_as_papers():
    """More may come: what a paper says of them is theirs to test."""
    assert set(METHODS) <= set(NAMES)
    assert {*("__".join(pair) for pair in PAIRS), "resnet14__resnet8"} <= set(names("pair"))


@pytest.mark.parametrize(("given", "kept"), [(4, 4), (4.0, 4), (0.5, 0.5), ("exact", "exact")])
def test_one_setting_has_one_spelling(given, kept):
    found = TermChoice(kind="m:C", settings={"x": given}).settings["x"]
    assert (found, type(found)) == (kept, type(kept))


def test_a_truth_is_no_number():
    with pytest.raises(ValidationError):
        TermChoice(kind="m:C", settings={"x": True})


@pytest.mark.parametrize("name", mostly_slow(sorted(METHODS), ("kd", "ft", "crd", "kd_ls")))
def test_weights_and_settings(name):
    wanted, found = METHODS[name], _choice(name).for_pair(*OTHER)
    assert found.weights == wanted.weights
    for ours, theirs in ((found.term, wanted.term), (found.initial, wanted.initial)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.kind == theirs.kind
            settings = kind_of(ours.kind).Settings
            assert set(ours.settings) == set(settings.model_fields), "a file shows all that can be set"
            given = {**theirs.settings, "negatives": 16384} if "negatives" in theirs.settings else theirs.settings
            assert settings.model_validate(ours.settings) == settings.model_validate(given)


def _tuned(name: str, *settings: str) -> dict[str, tuple]:
    choice, found = _choice(name), {}
    for teacher, student in PAIRS:
        here = choice.for_pair(teacher, student)
        found[f"{teacher}__{student}"] = (here.weights.term, *(here.term.settings[key] for key in settings))
    return found


def test_beta_of_dkd():
    wanted = dict.fromkeys(("resnet56__resnet20", "resnet110__resnet32", "resnet110__resnet20"), (1, 2))
    six = ("wrn_40_2__wrn_16_2", "wrn_40_2__wrn_40_1", "vgg13__vgg8", "vgg13__MobileNetV2")
    wanted |= dict.fromkeys(six, (1, 6))
    rest = {"__".join(pair): (1, 8) for pair in PAIRS}
    assert _tuned("dkd", "beta") == rest | wanted


def test_standardised_kd():
    wanted = {"__".join(pair): (9, 2) for pair in PAIRS} | {"vgg13__vgg8": (9, 3), "resnet110__resnet20": (12, 4)}
    assert _tuned("kd_ls", "temperature") == wanted | {"vgg13__MobileNetV2": (9, 3), "ResNet50__MobileNetV2": (1, 3)}


def test_standardised_dkd():
    wanted = {"__".join(pair): (9, 2, 8) for pair in PAIRS}
    wanted |= {"vgg13__vgg8": (15, 2, 2), "wrn_40_2__wrn_40_1": (12, 2, 2), "wrn_40_2__wrn_16_2": (12, 2, 2)}
    wanted |= {"resnet56__resnet20": (18, 3, 2), "resnet110__resnet32": (15, 2, 2), "resnet110__resnet20": (15, 2, 2)}
    wanted |= {"vgg13__MobileNetV2": (9, 3, 2), "ResNet50__MobileNetV2": (15, 2, 2)}
    assert _tuned("dkd_ls", "temperature", "beta") == wanted


def test_weight_of_reviewkd():
    wanted = {"__".join(pair): (5,) for pair in PAIRS}
    wanted |= {"resnet56__resnet20": (0.6,), "resnet110__resnet32": (1,), "resnet110__resnet20": (1,)}
    assert _tuned("reviewkd") == wanted | {"ResNet50__MobileNetV2": (30,), "resnet32x4__ShuffleV2": (8,)}


@pytest.mark.parametrize("pair", mostly_slow(names("pair"), ("vgg13__MobileNetV2",)))
def test_pairs_name_teacher_and_student(pair):
    config = OmegaConf.to_container(compose([f"pair={pair}"]), resolve=True)
    assert (config["teacher"]["name"], config["model"]["name"]) == tuple(f"repdistiller/{n}" for n in pair.split("__"))


# --- the published numbers ------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def _published() -> dict[tuple[str, str], str]:
    with (ROOT / "results/paper/distillation_published.csv").open() as file:
        return {(row["pair"], row["method"]): row["acc_pct"] for row in csv.DictReader(file)}


def test_published_accuracies_are_of_pairs_and_methods_that_exist():
    published = _published()
    assert {pair for pair, _ in published} == {"__".join(pair) for pair in PAIRS}
    assert {method for _, method in published} == {*METHODS, "teacher", "student"}
    assert [key for key, value in published.items() if not value] == [("wrn_40_2__wrn_40_1", "fsp")]
    study = [key for key, value in published.items() if key[1] in list(METHODS)[:13] and value]
    assert len(study) == 162
    assert all(50 < float(value) < 85 for value in published.values() if value)


def test_the_documentation_quotes_the_files():
    published = _published()
    with (ROOT / "results/paper/paper_tables.csv").open() as file:
        paper = {
            (re.sub("->", "__", row["model_or_pair"]).lower(), row["method"].lower()): row["acc_pct"] + row["tec_wh"]
            for row in csv.DictReader(file)
            if row["table"] == "3" and row["group"] == "distillation"
        }
    line = re.compile(r"\| (\w+) -> (\w+) \| (.+) \| (.+) \| ([\d.]+) \| \|")
    rows = line.findall((ROOT / "docs/distillation.md").read_text())
    assert len(rows) > 30
    for teacher, student, name, printed, acc in rows:
        pair, method = f"{teacher}__{student}", name.strip("`").replace("student alone", "student")
        assert acc == published[pair, method]
        assert paper.pop((pair.lower(), method), "-") == printed.replace(", ", "")
    assert paper == {}
