"""Identity: what is in a key, what is not, and one key pinned for good."""

from __future__ import annotations

import pytest

from benchmark.plan.config import compose, parse
from benchmark.plan.life import lives
from benchmark.plan.stage import Bound, Phase, Plan, Precision, Stage
from benchmark.plan.task import Params
from tests.harness.helpers import GPU, HERE


class Old(Params):
    a: int = 1


class New(Params):
    a: int = 1
    b: str = "later"


def test_a_golden_key():
    """Whoever breaks this makes every record of every study unfindable: raise a stage's version instead."""
    experiment, _ = parse(compose(["train_precision=tf32"]), GPU)
    (life,) = lives(experiment, HERE)
    assert life.key(life.plan.network) == "4734bbe0161530d54976"


def test_a_new_field_with_a_default_changes_no_key():
    assert Stage("m:f", Old(a=2)).key(lambda stage: "") == Stage("m:f", New(a=2)).key(lambda stage: "")
    assert Stage("m:f", Old()).key(lambda stage: "") != Stage("m:f", New(b="other")).key(lambda stage: "")


def test_function_parameters_version_and_inputs_are_in_the_key():
    base = Stage("m:f", Old())
    keys = {
        stage.key(lambda stage: "")
        for stage in (
            base,
            Stage("m:g", Old()),
            Stage("m:f", Old(a=2)),
            Stage("m:f", Old(version=2)),
            Stage("m:f", Old(), {"x": base}),
            Stage("m:f", Old(), {"y": base}),
            Stage("m:f", Old(), {"x": Stage("m:g", Old())}),
        )
    }
    assert len(keys) == 7


def test_the_device_is_in_the_key_of_device_bound_stages_alone():
    assert Stage("m:f", Old()).key(lambda stage: "a") == Stage("m:f", Old()).key(lambda stage: "b")
    bound = Stage("m:f", Old(), bound=Bound.DEVICE)
    assert bound.key(lambda stage: "a") != bound.key(lambda stage: "b")
    assert Stage("m:g", Old(), {"x": bound}).key(lambda stage: "a") != Stage("m:g", Old(), {"x": bound}).key(
        lambda stage: "b"
    )


def _key(*overrides: str) -> str:
    experiment, _ = parse(compose(overrides), GPU)
    (life,) = lives(experiment, HERE)
    return life.key(life.plan.network)


@pytest.mark.parametrize(
    "word",
    [
        "model=nni/vgg19", "data=cifar10", "scale=small", "seed=1", "recipe=check", "recipe.lr=0.2", "profile=published",
        "train_precision=bf16",
    ],
)  # fmt: skip  # a list of words reads best in rows
def test_what_makes_a_different_training_makes_a_different_key(word):
    assert _key(word) != _key()


@pytest.mark.parametrize(
    "word",
    [
        "paths.data=x",
        "hardware.device=cpu",
        "tau=3",
        "seeds=1",
        "deploy_precision=fp16",
        "inference.windows=7",
    ],
)
def test_what_does_not_touch_training_keeps_its_key(word):
    assert _key(word) == _key()


def test_smoke_and_full_never_share_a_key():
    assert len({_key(f"scale={name}") for name in ("full", "small", "smoke")}) == 3


def test_a_plan_that_hides_a_stage_is_refused():
    hidden = Stage("m:hidden", Old())
    open_ = Stage("m:f", Old(), {"x": hidden})
    with pytest.raises(ValueError, match=r"m:f rests on m:hidden, which is no earlier step"):
        Plan(((Phase.BASE, open_),), open_, Precision("fp32"))
    with pytest.raises(ValueError, match="m:hidden is to be deployed but is no step"):
        Plan(((Phase.BASE, Stage("m:f", Old())),), hidden, Precision("fp32"))
    with pytest.raises(ValueError, match="m:hidden is to be deployed but is no step"):
        Plan(((Phase.BASE, Stage("m:f", Old())),), Stage("m:f", Old()), Precision("int8", scales=hidden))
