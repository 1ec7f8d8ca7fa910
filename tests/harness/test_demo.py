"""The study that a box without a GPU runs first: every family, trainings shared, and rows that stay apart from results."""

from __future__ import annotations

from itertools import chain

import pytest

from benchmark.plan import config
from benchmark.plan.life import lives
from benchmark.plan.stage import Phase
from benchmark.plan.study import expand
from tests.harness.helpers import CPU, HERE


@pytest.fixture(scope="module")
def blocks():
    return [[config.parse(config.compose(job), CPU)[0] for job in block.jobs] for block in expand("demo")]


def _of(blocks, method):
    return [each for each in chain(*blocks) if each.method["name"] == method]


def test_the_demo_holds_every_family_and_begins_with_the_baseline_alone(blocks):
    names = [each.method["name"] for each in chain(*blocks)]
    families = {name.partition("/")[0] for name in names}
    assert [each.method["name"] for each in blocks[0]] == ["baseline"]
    assert families == {"baseline", "pruning", "quantization", "distillation", "nas"}
    assert {"pruning/l1", "pruning/fpgm", "distillation/kd", "distillation/crd", "quantization/int8"} < set(names)
    starts = [each.method["start"]["name"] for each in chain(*blocks) if each.method.get("start")]
    assert starts == ["distillation/kd"]


def test_its_lives_share_one_base_training_and_one_teacher(blocks):
    bases = {}
    for each in chain(*blocks):
        for phase, stage in lives(each, HERE)[0].plan.steps:
            if phase is Phase.BASE:
                bases.setdefault(each.task.teacher is not None, set()).add(stage.key(str))
    small, large = (lives(each, HERE)[0].plan.network.key(str) for each in _of(blocks, "baseline"))
    assert bases == {False: {small, large}, True: {large}}
    (combined,) = [each for each in chain(*blocks) if each.method.get("start")]
    (distilled,) = _of(blocks, "distillation/kd")
    assert lives(distilled, HERE)[0].plan.network in [stage for _, stage in lives(combined, HERE)[0].plan.steps]


def test_its_rows_stay_apart_from_results_and_show_real_images(blocks):
    assert {each.paths.results.as_posix() for each in chain(*blocks)} == {"results/.demo"}
    assert {(each.task.scale.name, each.task.data.name) for each in chain(*blocks)} == {("demo", "cifar100")}
