"""`python -m benchmark.energy -- COMMAND`: the energy of a whole command, and its own exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmark.energy import Reading

WORK = "sum(i * i for i in range(6_000_000))"


def measured(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmark.energy", "--device", "cpu", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_work_of_a_child_of_the_command_counts(tmp_path):
    alone, below = tmp_path / "alone.json", tmp_path / "below.json"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}])"
    assert measured("--json", str(alone), "--", sys.executable, "-c", "pass").returncode == 0
    ran = measured("--json", str(below), "--", sys.executable, "-c", nested)
    assert ran.returncode == 0
    small, large = (json.loads(path.read_text()) for path in (alone, below))
    assert large["joules"] > 3 * small["joules"], "the loop runs in a grandchild"
    assert large["wh"] == pytest.approx(large["joules"] / 3600)
    assert large["exit_status"] == 0
    assert "children" not in large, "of a reading those are windows inside it, and no child processes"
    line, *notes = ran.stderr.splitlines()
    assert all(note.startswith("note: other programs kept") for note in notes)
    assert "W.h" in line
    assert f"grade {large['grade']}" in line


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_the_commands(command, status):
    assert measured("--", "sh", "-c", command).returncode == status


def test_the_output_is_the_commands_own():
    ran = measured("--", "sh", "-c", "echo out; echo err >&2")
    assert ran.stdout == "out\n"
    assert ran.stderr.startswith("err\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "name the command"), (["--json", "/nosuch/x", "--", "ls"], "no file can be written there"),
     (["--tdp", "-5", "--", "ls"], "error: "), (["--", "no-such-command"], "there is no command 'no-such-command'")],
)  # fmt: skip  # one a line says no more
def test_what_cannot_be_done_is_said_before_the_work(words, said):
    ran = measured(*words)
    assert ran.returncode in (2, 127)
    assert said in ran.stderr


def test_a_terminated_wrapper_ends_its_command_and_still_reports():
    words = [sys.executable, "-m", "benchmark.energy", "--device", "cpu", "--", "sleep", "60"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not _children(child.pid) and time.monotonic() < deadline:
        time.sleep(0.001)  # so that some runs meet the moment in which the command starts
    os.kill(child.pid, signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM
    assert "sleep: " in said


def _children(pid: int) -> str:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "train: 0.5 ± 0.01 W.h in 12.0 s (nvml:counter, grade A)"),
        (
            {"source": "estimate:tdp_load", "grade": "E"},
            "train: ~0.5 ± 0.01 W.h in 12.0 s (estimate:tdp_load, grade E)",
        ),
        ({"joules": float("nan"), "grade": "X", "reason": "lost"}, "train: no energy in 12.0 s (grade X: lost)"),
        ({"ci95_joules": float("nan")}, "train: 0.5 ± unknown W.h in 12.0 s (nvml:counter, grade A)"),
    ],
)
def test_a_reading_prints_as_one_line(changes, line):
    own = {"name": "train", "joules": 1800.0, "ci95_joules": 36.0, "seconds": 12.0, "paused_seconds": 0.0,
           "paused_joules": 0.0, "source": "nvml:counter", "grade": "A"}  # fmt: skip
    assert str(Reading(**{**own, **changes})) == line
