"""What a user may say at the door: every setting with values that cannot be meant, Hydra's grammar, paths, streams."""

from __future__ import annotations

import copy
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmark.__main__ import main
from benchmark.plan.config import ConfigError, compose, parse
from benchmark.plan.grammar import LABELS, quoted
from benchmark.streams import Unbreakable
from tests.harness.helpers import CPU

ROOT = Path(__file__).parents[2]
BASE = ("data=synthetic", "scale=smoke", "model=repdistiller/resnet8")
STRANGE = ("x", "", None, -1, 0, 1e300, float("inf"), float("nan"), 2**70, True, [], {}, "ä", "a\nb", "\0", "[bold]")
METHODS = (
    "training/amp",
    "pruning/l1",
    "distillation/kd",
    "quantization/int8",
    "factorization/low_rank",
    "nas/darts_tiny",
)


def settings(node, prefix=()):
    """The place of every value of a composed configuration."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from settings(value, (*prefix, name))
        yield (*prefix, name)


def changed(words, place, value):
    words = copy.deepcopy(words)
    node = words
    for name in place[:-1]:
        node = node[name]
    node[place[-1]] = value
    return words


def why_refused(words) -> str:
    try:
        parse(OmegaConf.create(words), CPU)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("method", "values"),
    [("baseline", STRANGE[::6]), *(pytest.param(method, STRANGE[::2], marks=pytest.mark.slow) for method in METHODS)],
)
def test_no_value_of_any_setting_is_a_traceback(method, values):
    """Refused in one line that names it, or accepted; never used before its type is known."""
    words = [f"method={method}"]
    words += ["data=synthetic", "scale=smoke"]
    words += ["pair=vgg13__vgg8"] if method.startswith("distillation") else []
    words += ["deploy_precision=int8"] if "int8" in method else []
    plain = OmegaConf.to_container(compose(words), resolve=True)
    refused = 0
    for place, value in itertools.product(settings(plain), values):
        if place[0] == "hydra" or place[-1] in ("_target_", "builder"):
            continue
        said = why_refused(changed(plain, place, value))
        refused += bool(said)
        assert said.isprintable(), (place, value)
        assert len(said) < 900, (place, value)
    assert refused > 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seeds=1e18"], "seeds: Input should be less than or equal to 1000"),
        (["seed=18446744073709551616"], "seed: Input should be less than or equal to 4294967295"),
        (["seed=4294967295", "seeds=2"], "the last seed is above"),
        (["tau=400"], "tau: Input should be less than or equal to 100"),
        (["recipe.epochs=x"], "recipe.epochs: Input should be a valid integer"),
        (["scale=smoke", "scale.max_epochs="], "scale.max_epochs: Input should be a valid integer"),
        (["paths.results="], "paths.results: name a folder"),
        (["inference=5"], "inference is a block of settings"),
        (["~seed=0"], "no setting can be taken away"),
        (["~recipe"], "no setting can be taken away"),
        (["hydra.run.dir=/tmp"], "would change nothing"),
        (["--scale", "smoke"], "settings are written without dashes: scale=smoke"),
        (["--frobnicate"], "unknown flag --frobnicate"),
        (["pruning/l1"], "did you mean method=pruning/l1?"),
        (["sparsity=0.5"], "did you mean method.sparsity?"),
        (["seed"], "'seed' has no value"),
        (["method.sparsity=a#b"], "quote it twice"),
        (["seed={"], "quote it twice"),
        (["paths.data=~nobodyatall/x"], "write the folder in full"),
        (["hardware.cpu_tdp_w=1e300"], "hardware.cpu_tdp_w: Input should be less than"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_its_remedy(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *words, *(word for word in BASE if word.split("=")[0] not in str(words))]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note")]
    assert line.startswith("error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == [], "nothing may be written before the words are understood"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--scale", "smoke"], "settings are written without dashes: scale=smoke"),
        (["run", "--frobnicate"], "unknown flag --frobnicate"),
        (["run", "--resolve"], "can only be used in conjunction with --cfg"),
        (["run", "-m", "--scale", "smoke"], "-m stands alone"),
        (["study", "experiment=smoke", "--nothing"], "unknown flag --nothing"),
        (["check", "--all"], "unknown flag --all"),
        (["free", "--now"], "unknown flag --now"),
        (["device", "--look"], "unknown flag --look"),
    ],
)
def test_no_command_ignores_a_flag_that_it_does_not_know(words, said, capsys):
    assert main(words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("group", LABELS)
def test_a_row_cannot_be_called_by_another_name_than_its_choices(group):
    with pytest.raises(ConfigError, match="rows are called by the name of the file that was chosen"):
        compose([f"{group}.name=full", *BASE])
    with pytest.raises(ConfigError, match="rows are called by the name of the file that was chosen"):
        compose([f"++{group}.name=full", *BASE])


def test_a_network_of_ones_own_has_a_name_of_its_own():
    own = ["model.builder=tests.tiny:tiny", "data=synthetic", "scale=smoke"]
    assert compose(["model.name=mine", *own]).model.name == "mine"
    with pytest.raises(ConfigError, match="rows are called by the name"):
        compose(["model.name=nni/vgg16", *own])


@pytest.mark.parametrize(
    "name", ["a=b", "a#b", "a b", "ä", "a,b", "it's", 'say "x"', "a{b}", "a~", "(a)", "a:b", "a\\b"]
)
def test_a_path_may_hold_every_sign(name, tmp_path):
    experiment, _ = parse(compose([f"paths.data={tmp_path / name}", *BASE]), CPU)
    assert experiment.paths.data == tmp_path / name


def test_a_home_is_a_home_and_no_folder_called_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    experiment, _ = parse(compose(["paths.data=~/x", *BASE]), CPU)
    assert experiment.paths.data == tmp_path / "x"


@pytest.mark.parametrize(
    "word", ["seed=3", "paths.data='a'", "paths.results=null", "paths.data=${paths.results}", "paths.data=a/b"]
)
def test_words_that_hydra_can_read_are_left_as_they_are(word):
    assert quoted(word) == word


def in_shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONIOENCODING")}
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**known, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip  # a line each reads best


def run_life(root: Path) -> str:
    folders = f"paths.results={root}/results paths.artifacts={root}/artifacts paths.data={root}/data"
    return f"$PYTHON -m benchmark run {' '.join(BASE)} engine=torch {folders}"


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&1 | head -1", ">&- 2>&-", "2>&1 | cat >/dev/full", "2>/dev/full >/dev/full"])
def test_a_reader_that_goes_away_ends_no_run(tmp_path, streams):
    in_shell(f"{run_life(tmp_path)} {streams}")
    assert len(list((tmp_path / "results" / "records").rglob("*.json"))) == 3
    assert (tmp_path / "results" / "summary.csv").is_file()


@pytest.mark.slow
def test_a_terminal_that_speaks_ascii_and_no_home_are_no_reason_to_fail(tmp_path):
    done = in_shell(run_life(tmp_path), PYTHONIOENCODING="ascii:strict", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "resnet8" in done.stdout


def test_help_into_a_closed_pipe_says_nothing_about_it():
    done = in_shell("$PYTHON -m benchmark run --help | head -1; echo ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_an_unbreakable_stream_goes_on_without_its_reader(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        tough = Unbreakable(stream)
        assert tough.write("x" * 100_000) == 100_000
        tough.flush()
        tough.writelines(["a", "b"])
        assert tough.isatty() is False


def test_signs_that_a_stream_cannot_spell_are_written_otherwise():
    raw = io.BytesIO()
    tough = Unbreakable(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    tough.write("812 \u00b1 3 J, 2 \u00d7 2, a \u2192 b, \u00fc")
    assert raw.getvalue() == b"812 +- 3 J, 2 x 2, a -> b, ?"


@pytest.mark.parametrize("command", ["report", "check", "free"])
def test_a_folder_that_may_not_be_read_is_one_line(command, capsys, monkeypatch, tmp_path):
    """Root may look everywhere, so the refusal is the file system's own."""

    whole = Path.iterdir

    def refuse(self):
        if self.is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self)

    (tmp_path / "results").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main([command, f"paths.results={tmp_path}/results", f"paths.artifacts={tmp_path}/a"]) == 1
    assert "Permission denied" in capsys.readouterr().err
