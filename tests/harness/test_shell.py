"""The branches of the shell scripts, with a stand-in for Python that notes what it is asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
echo "$*" | tr '\\n' ' ' >> "$NOTES"; echo >> "$NOTES"
case "$*" in
    *"device hardware=gpu"*) exit "$NO_GPU" ;;
    *find_spec*) exit "$NO_TENSORRT" ;;
    *pip*) exit "$NO_PIP" ;;
    *name=cifar100*) exit "$NO_DATA" ;;
    *study*) exit "$FAILS" ;;
esac
exit 0
"""


@pytest.fixture
def bench(tmp_path):
    """Runs scripts/bench.sh: bench(env...) -> (exit status, what the stand-in was asked for)."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    notes = tmp_path / "notes"

    def run(*words: str, **env: str) -> tuple[int, list[str]]:
        notes.write_text("")
        states = {"NO_GPU": "0", "NO_TENSORRT": "0", "NO_PIP": "0", "NO_DATA": "0", "FAILS": "0"}
        known = {name: value for name, value in os.environ.items() if name not in ("DATA", "EXPERIMENT", "TENSORRT")}
        done = subprocess.run(
            ["sh", "scripts/bench.sh", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
            env={**known, **states, "VENV": str(tmp_path / "venv"), "NOTES": str(notes), **env},
        )  # fmt: skip  # a line each reads best
        return done.returncode, notes.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, "-m benchmark study experiment=quick paths.data=data "),
        ({"DATA": "/my data"}, "-m benchmark study experiment=quick paths.data=/my data "),
        ({"EXPERIMENT": "pruning", "DATA": "/d"}, "-m benchmark study experiment=pruning paths.data=/d "),
        ({"NO_GPU": "1"}, "-m benchmark study experiment=demo paths.data=data "),
        ({"NO_GPU": "1", "DATA": "/d"}, "-m benchmark study experiment=demo paths.data=/d "),
        ({"NO_GPU": "1", "NO_DATA": "1"}, "-m benchmark study experiment=demo data=synthetic "),
        (
            {"NO_GPU": "1", "EXPERIMENT": "pruning"},
            "-m benchmark study experiment=pruning scale=smoke paths.data=data ",
        ),
    ],
)
def test_the_main_job_takes_its_data_and_its_study_on_every_machine(bench, env, wanted):
    status, asked = bench(**env)
    assert status == 0
    assert asked[-1] == wanted


def test_data_that_is_damaged_stops_the_job_and_is_not_replaced(bench, tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    status, asked = bench(NO_GPU="1", NO_DATA="1", DATA=str(tmp_path))
    assert status == 1
    assert not any("study" in line for line in asked)


def test_on_a_gpu_it_says_first_what_the_longer_studies_take(bench):
    asked = bench()[1]
    planned = [line for line in asked if "dry_run=true" in line]
    assert [line.split()[3] for line in planned] == ["experiment=table3", "experiment=full"]


def test_words_of_the_command_reach_the_study(bench):
    assert bench("seed=3")[1][-1].endswith("paths.data=data seed=3 ")
    assert bench("seed=3", NO_GPU="1", NO_DATA="1")[1][-1].endswith("data=synthetic seed=3 ")


@pytest.mark.parametrize("env", [{}, {"NO_GPU": "1"}])
def test_a_study_that_fails_fails_the_job(bench, env):
    assert bench(FAILS="7", **env)[0] == 7


@pytest.mark.parametrize(
    ("env", "tried"),
    [
        ({"NO_TENSORRT": "1"}, True),
        ({}, False),
        ({"NO_TENSORRT": "1", "TENSORRT": "no"}, False),
        ({"NO_TENSORRT": "1", "NO_PIP": "1"}, True),
    ],
)
def test_tensorrt_is_installed_where_it_is_missing_and_wanted_and_its_failure_is_no_end(bench, env, tried):
    status, asked = bench(**env)
    assert status == 0
    assert any("pip install" in line for line in asked) is tried


@pytest.mark.parametrize("target", ["bench", "smoke", "report", "check", "test", "test-slow", "lint", "gpu-check"])
def test_every_target_of_the_makefile_runs_what_it_says(target):
    done = subprocess.run(
        ["make", "-n", target, "DATA=/d", "EXPERIMENT=pruning"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if target == "bench":
        assert "EXPERIMENT=pruning DATA=/d sh scripts/bench.sh" in done.stdout
    if target == "smoke":
        assert "paths.data=/d" in done.stdout
