"""What a command says of itself, numbers as people write them, and hints at what was probably meant."""

from __future__ import annotations

import sys

import pytest

from benchmark import commands
from benchmark.__main__ import COMMANDS, EXPERIMENTS, main
from benchmark.common import _width, counted
from benchmark.helping import WORDS
from benchmark.plan.asked import Asked, inferences
from benchmark.report.printed import WIDEST
from tests.harness.test_cli import ROOT


def test_every_command_that_is_not_about_experiments_has_its_own_help():
    assert set(COMMANDS) == {*EXPERIMENTS, *WORDS}


@pytest.mark.parametrize("command", sorted(WORDS))
def test_the_help_of_a_command_says_what_it_does_and_the_words_it_takes(command, capsys):
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: python -m benchmark {command} ")
    assert f"\n  {command} " in told, "what it does"
    for line in WORDS[command]:
        assert (line in told) is not line.startswith("#")
    for other in set(COMMANDS) - {command}:
        assert f"\n  {other} " not in told


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_the_help_of_experiments_names_the_studies(command, capsys):
    assert main([command, "--help"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  experiment=")]
    assert line.startswith("  experiment=baselines | demo | ")
    assert "sensitivity/gpu" in line


def test_the_help_of_a_report_explains_its_settings(capsys):
    main(["report", "--help"])
    told = capsys.readouterr().out
    for name in Asked.model_fields:
        assert f"\n  {name}: " in told
    assert "seeds:" not in told


@pytest.mark.parametrize(
    ("text", "number"),
    [("10M", 1e7), ("1.5B", 1.5e9), ("500k", 5e5), (" 2G ", 2e9), ("2e8", 2e8), ("1e3k", 1e6), ("ten", "ten"), (7, 7)],
)
def test_inferences_are_read_as_people_write_them(text, number):
    assert inferences(text) == number


def test_a_report_and_advice_take_them(capsys):
    assert Asked(tau=2, mui="10M,1B").mui == (1e7, 1e9)
    assert Asked(tau=2, mui="1e7,10M").mui == (1e7,), "each once"
    assert main(["advise", "mui=200M", "min_acc=70", "source=paper"]) == 0
    short = capsys.readouterr().out
    assert main(["advise", "mui=2e8", "min_acc=70", "source=paper"]) == 0
    assert short == capsys.readouterr().out
    assert main(["advise", "mui=10X", "source=paper"]) == 1
    assert "mui=10X is no number" in capsys.readouterr().err
    assert main(["advise", "mui=2e8", "min_acc=70M", "source=paper"]) == 1


def test_advice_without_rows_names_where_trial_rows_lie(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["advise", "mui=1e7"]) == 1
    assert "results/.smoke" not in capsys.readouterr().err
    (tmp_path / "results" / ".smoke" / "records").mkdir(parents=True)
    assert main(["advise", "mui=1e7"]) == 1
    assert "paths.results=results/.smoke (smoke rows: a trial, no result)" in capsys.readouterr().err


def test_a_choice_in_the_usual_folder_of_ones_own_is_told_with_its_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["plan", "method=baseline", "model=repdistiller/resnet8", "data=colours", "hardware=cpu"]
    assert main(words) == 1
    assert "--config-dir" not in capsys.readouterr().err
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "colours.yaml").write_text("")
    assert main(words) == 1
    assert "(configs/data/colours.yaml is searched with --config-dir configs)" in capsys.readouterr().err


def test_check_names_where_trial_rows_lie(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    assert main(["check"]) == 1
    assert "is it the right folder?" in capsys.readouterr().err
    (tmp_path / "results" / ".smoke" / "records").mkdir(parents=True)
    assert main(["check"]) == 1
    assert "nothing to judge: say paths.results=results/.smoke" in capsys.readouterr().err
    (tmp_path / "results" / "runs" / "m").mkdir(parents=True)
    (tmp_path / "results" / "runs" / "m" / "a.json").write_text("{}")
    assert main(["check"]) == 1
    assert "a run was begun here" in capsys.readouterr().err


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_is_refused_in_words(system, monkeypatch, capsys):
    """There, the energy of child processes would be missed, and said without it."""
    monkeypatch.setattr(sys, "platform", system)
    assert main(["plan", "scale=smoke", "data=synthetic"]) == 1
    said = capsys.readouterr().err
    assert f"this system ({system}) is not supported" in said
    assert "Linux container" in said


def test_a_module_that_windows_has_not_is_no_missing_installation(monkeypatch, capsys):
    def absent(_):
        raise ModuleNotFoundError("No module named 'fcntl'", name="fcntl")

    monkeypatch.setattr(commands, "check", absent)
    assert main(["check"]) == 1
    said = capsys.readouterr().err
    assert "is not supported: run it on Linux" in said
    assert "make setup" not in said


@pytest.mark.parametrize(("said", "width"), [("90", 90), ("", WIDEST), ("wide", WIDEST), ("0", WIDEST)])
def test_columns_says_how_wide_a_pipe_is(said, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", said)
    assert _width() == width


def test_a_number_of_one_takes_no_plural():
    assert [counted(number, "fault") for number in (0, 1, 2)] == ["0 faults", "1 fault", "2 faults"]


def test_an_engine_that_cannot_run_here_is_told_with_the_one_that_can(capsys):
    words = ["method=baseline", "engine=tensorrt", "scale=smoke", "data=synthetic", "hardware=cpu"]
    assert main(["plan", *words]) == 1
    assert capsys.readouterr().err.rstrip().endswith("TensorRT needs a GPU; engine=auto takes onnxruntime here")


def test_a_builder_without_classes_is_told_what_it_is_called_with():
    from benchmark.vision.builders import BuilderError, build, trust

    trust("tests.tiny:tiny")
    with pytest.raises(BuilderError, match="it is called with width_of_nothing: the kwargs of its file, and classes="):
        build("tests.tiny:tiny", {"width_of_nothing": 3})


def test_columns_explain_rivals_and_totals():
    told = (ROOT / "docs" / "columns.md").read_text()
    assert "**Rivals** are rows that" in told
    assert "## totals.csv" in told
