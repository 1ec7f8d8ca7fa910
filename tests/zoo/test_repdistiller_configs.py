"""The words of the zoo: each model file names a builder that exists, and the recipes are RepDistiller's."""

from __future__ import annotations

import pytest
import yaml
from repdistiller_zoo import GOLDEN, ROOT, ZOO, module_name

from benchmark.plan.task import Model, Recipe
from benchmark.vision.originals import NNI, REPDISTILLER, original_of

MODELS = ROOT / "configs" / "model" / "repdistiller"
RECIPES = ROOT / "configs" / "recipe"


def test_every_network_has_a_file_and_every_file_a_network():
    assert {path.stem for path in MODELS.glob("*.yaml")} == set(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_model_file_names_its_builder(name):
    words = yaml.safe_load((MODELS / f"{name}.yaml").read_text())
    slow = name in ("MobileNetV2", "ShuffleV1", "ShuffleV2")
    assert words.pop("recipe") == ("repdistiller240_mobile_shuffle" if slow else "repdistiller240")
    model = Model(**words)
    assert model.name == f"repdistiller/{name}"
    assert model.builder == f"benchmark.vision.models.repdistiller.{module_name(name)}"
    assert model.kwargs == {}


def recipe(name: str) -> Recipe:
    return Recipe(**yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("repdistiller240", "default_0.05"), ("repdistiller240_mobile_shuffle", "mobile_shuffle_0.01")],
)
def test_learning_rate_as_published(name, schedule):
    values = recipe(name)
    for epoch, rate in GOLDEN["schedule"][schedule].items():
        # the golden file counts epochs from 1; a milestone is passed when that many epochs are done
        passed = sum(int(epoch) - 1 >= fraction * values.epochs for fraction in values.milestones)
        assert values.lr * values.gamma**passed == pytest.approx(rate, rel=1e-12)


def test_recipes_as_published():
    values = recipe("repdistiller240")
    assert (values.epochs, values.batch_size, values.momentum, values.weight_decay) == (240, 64, 0.9, 5e-4)
    assert (values.nesterov, values.label_smoothing, values.clip_norm, values.schedule) == (False, 0, None, "multistep")
    assert (values.augment, values.crop_padding, values.original) == ("crop_flip", 4, "repdistiller")
    assert values.mean == (0.5071, 0.4867, 0.4408)
    assert values.std == (0.2675, 0.2565, 0.2761)
    other = recipe("repdistiller240_mobile_shuffle")
    changed = {"name": "repdistiller240_mobile_shuffle", "lr": 0.01}
    assert other == values.model_copy(update=changed)


@pytest.mark.parametrize("name", ["repdistiller240", "repdistiller240_mobile_shuffle"])
def test_a_recipe_under_another_name_keeps_its_originals_manner(name):
    """As fine-tuning renames it: workers, test batch and reading back stay RepDistiller's."""
    renamed = recipe(name).model_copy(update={"name": f"{name}-finetune", "epochs": 20, "schedule": "constant"})
    assert original_of(renamed) == REPDISTILLER
    assert original_of(recipe("nni160")) == original_of(recipe("check")) == NNI
    assert "original" not in recipe("nni160").identity()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_command_may_override_every_field_of_a_recipe(path):
    """Hydra overrides what a file lists and nothing else."""
    assert set(yaml.safe_load(path.read_text())) == set(Recipe.model_fields)
