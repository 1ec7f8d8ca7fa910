"""The command that runs a row again plans the very stages that the row rests on."""

from __future__ import annotations

import shlex

import pytest

from benchmark.plan.config import parse
from benchmark.plan.life import Life, lives, place_of
from benchmark.plan.quick import compose_all
from benchmark.plan.study import expand
from benchmark.report.command import command_of
from tests.harness.helpers import CPU

NOW = "2026-01-01T00:00:00+00:00"


def planned(jobs: list[list[str]]) -> list[Life]:
    return [
        life
        for config in compose_all(jobs)
        for life in lives(parse(config, CPU)[0], place_of(parse(config, CPU)[0], CPU, []))
    ]


def other_plans(jobs: list[list[str]]) -> list[str]:
    """Commands that plan other stages than the lives that they were made of."""
    runs = [life.run_file(NOW) for life in planned(jobs)]
    commands = [command_of(run) for run in runs]
    again = [life.run_file(NOW) for life in planned([shlex.split(command)[4:] for command in commands])]
    return [command for command, run, other in zip(commands, runs, again, strict=True) if other != run]


def jobs_of(name: str) -> list[list[str]]:
    return [job for block in expand(name, ("hardware=cpu",)) if not block.unavailable for job in block.jobs]


@pytest.mark.slow
def test_settings_of_every_block_come_back():
    jobs = [
        [
            "method=pruning/l1",
            "start=distillation/kd",
            "pair=vgg13__vgg8",
            "scale=small",
            "method.start.weights.ce=0.3",
        ],
        ["method=distillation/ft", "pair=vgg13__vgg8", "scale=smoke", "method.term.settings.rate=0.25", "seed=2"],
        ["method=nas/zero_cost", "method.size=xs", "recipe=check", "recipe.epochs=3", "seed=1"],
        ["method=distillation/crd", "pair=resnet56__resnet20", "recipe=check", "teacher_seed=4", "recipe.lr=0.02"],
        ["method=quantization/int8", "calibration.algorithm=percentile", "inference.batch_sizes=[1,2]", "scale=smoke"],
        ["method=quantization/fp16", "base_precision=bf16", "model=nni/resnet18", "profile=published"],
        ["method=pruning/fpgm", "method.sparsity=0.3", "recipe.mean=[0.5,0.5,0.5]", "data=synthetic"],
        ["method=baseline", "scale=smoke", "scale.train_images=40", "scale.max_epochs=null", "recipe=check"],
        ["method=baseline", "scale=full", "+scale.train_images=500", "+scale.max_epochs=2"],
    ]
    assert other_plans(jobs) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "smoke_all", "table3", "quick", "demo", "pruning_settings"])
def test_every_experiment_of_a_study_comes_back(name):
    assert other_plans(jobs_of(name)) == []


def test_several_seeds_are_one_command():
    (life,) = planned([["method=baseline", "seed=3"]])
    words = shlex.split(command_of(life.run_file(NOW), seeds=2))
    assert {"seed=3", "seeds=2"} <= set(words)


def test_words_of_a_file_stay_words():
    """What a run file holds is data: in a command it stays one quoted word, whatever signs it has."""
    (life,) = planned([["method=baseline"]])
    run = life.run_file(NOW)
    hostile = run.model_copy(update={"words": run.words.model_copy(update={"data": "x; rm -rf $(pwd)"})})
    assert "data=x; rm -rf $(pwd)" in shlex.split(command_of(hostile))
    assert "'data=x; rm -rf $(pwd)'" in command_of(hostile)
