"""Users extend without forking: a method and a criterion of one Python file and one YAML each, outside the tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from benchmark.__main__ import main
from benchmark.plan import config, study
from benchmark.plan.folders import ConfigError, take_config_dirs
from benchmark.vision.models.repdistiller.resnet import resnet8
from tests.harness.helpers import CPU
from tests.harness.test_cli import ROOT, TINY, cli

EXAMPLE = ROOT / "examples" / "your_method"


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """A copy of the example far from the tree, importable; --config-dir is forgotten afterwards."""
    copy = tmp_path / "outside"
    shutil.copytree(EXAMPLE, copy)
    monkeypatch.syspath_prepend(str(copy))
    yield copy
    take_config_dirs([])
    for name in ("your_method", "largest"):
        sys.modules.pop(name, None)


def _flag(folder: Path) -> list[str]:
    return ["--config-dir", str(folder / "configs")]


def _paths(root: Path) -> list[str]:
    return [f"paths.{name}={root / name}" for name in ("data", "artifacts", "results")]


# --- a method ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_outside_the_tree_lives_a_whole_life(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "outside")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "outside"), str(ROOT)])}
    words = [*TINY, *_paths(tmp_path), *_flag(tmp_path / "outside"), "method.epochs=2"]
    ran = cli("run", "method=your_method", *words, cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"your_method +tiny +1 .*~\S+ ±\S+%.* E", ran.stdout)
    rows = pd.read_csv(tmp_path / "results" / "stages.csv")
    assert list(rows["stage"]) == ["train", "train_on", "train_on", "average", "build_engine", "inference"]
    assert (rows.loc[rows["kind"] != "IEC", "energy_wh"] > 0).all()
    asked = ["scale=smoke", "--no-figures", *_paths(tmp_path), *_flag(tmp_path / "outside")]
    reported = cli("report", *asked, cwd=tmp_path, env=env)
    assert reported.stdout == ran.stdout
    checked = cli("check", "scale=smoke", *_paths(tmp_path), *_flag(tmp_path / "outside"), cwd=tmp_path, env=env)
    assert checked.returncode == 0, checked.stdout
    planned = cli("plan", "method=your_method", *words, cwd=tmp_path, env=env)
    assert "was edited since" not in planned.stdout
    for path in (tmp_path / "outside").glob("*.py"):
        path.write_text(path.read_text() + "# a line more\n")
    planned = cli("plan", "method=your_method", *words, cwd=tmp_path, env=env)
    assert planned.stdout.count("was edited since: raise the version of its parameters") == 3, planned.stderr


@pytest.mark.slow
def test_whether_pruning_pays_off_for_a_network_outside_the_tree(tmp_path):
    """What examples/own_network/README.md says, word by word but for the folders and the scale."""
    shutil.copytree(ROOT / "examples" / "own_network", tmp_path / "own")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "own"), str(ROOT)])}
    words = ["model=own_network", "scale=smoke", "data=synthetic", *_paths(tmp_path), *_flag(tmp_path / "own")]
    ran = cli("run", "-m", "method=baseline,pruning/l1", *words, cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"pruning/l1, own_network: .*greener than its baseline", ran.stdout)  # or that nobody can tell
    asked = [*_paths(tmp_path), *_flag(tmp_path / "own")]
    reported = cli("report", "mui=1e7,5e8", "scale=smoke", "--no-figures", *asked, cwd=tmp_path, env=env)
    assert "G(10M)" in reported.stdout
    assert len(pd.read_csv(tmp_path / "results" / "by_mui.csv")) == 4
    advised = cli("advise", "mui=1e7", *asked, cwd=tmp_path, env=env)
    assert re.search(r"greenest: +\S+ on own_network", advised.stdout), advised.stderr
    check = ["plan", "--check", "method=pruning/l1", *words]
    unknown = cli(*check, "model.kwargs={depth: 3}", cwd=tmp_path, env=env)
    assert unknown.stderr.splitlines()[-1].endswith("a name that it has not is added by +model.kwargs.NAME=VALUE")
    broken = cli(*check, "+model.kwargs.depth=3", cwd=tmp_path, env=env)
    assert broken.returncode == 1
    assert re.search("error: .*model own_network cannot be built: .*'depth'", broken.stderr)


@pytest.mark.slow
def test_a_life_on_images_of_ones_own(tmp_path):
    """The second part of examples/own_network/README.md, and the row's own command."""
    shutil.copytree(ROOT / "examples" / "own_network", tmp_path / "own")
    for split, count in (("train", 20), ("test", 10)):
        for name, colour in (("daisy", (200, 40, 10)), ("rose", (10, 40, 200))):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), (*colour[:2], colour[2] + number)).save(folder / f"{number}.png")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "own"), str(ROOT)])}
    flag = _flag(tmp_path / "own")
    made = cli(
        "data",
        "from=images",
        "name=flowers",
        f"to={tmp_path / 'own' / 'configs'}",
        "resize=true",
        cwd=tmp_path,
        env=env,
    )
    assert made.returncode == 0, made.stderr
    few = ["scale=smoke", "scale.train_images=40", "scale.test_images=20", *_paths(tmp_path)]
    ran = cli(
        "run",
        "-m",
        "method=baseline,pruning/l1",
        "model=own_network",
        "data=flowers",
        *few,
        *flag,
        cwd=tmp_path,
        env=env,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"flowers@[0-9a-f]{12}, 2 classes, .*40 training images, 20 test images", ran.stdout)
    assert set(pd.read_csv(tmp_path / "results" / "summary.csv")["data"].str.partition("@")[0]) == {"flowers"}
    page = (tmp_path / "results" / "report.html").read_text()
    commands = re.findall(r'"command": ?"python -m benchmark run ([^"]*)"', page)
    assert len(commands) == 2
    for command in commands:
        words = [*shlex.split(command), *_paths(tmp_path), *flag]
        planned = cli("plan", *words, cwd=tmp_path, env=env)
        assert "to do: 0 stage(s)" in planned.stdout, planned.stdout + planned.stderr
        assert "mean" not in command
    file = tmp_path / "data" / "flowers.npz"
    file.write_bytes(file.read_bytes()[:-100])
    again = cli("run", "method=pruning/fpgm", "model=own_network", "data=flowers", *few, *flag, cwd=tmp_path, env=env)
    assert again.returncode == 1
    assert "flowers.npz is not what data=flowers says" in again.stderr


def test_the_mean_of_networks_is_what_the_example_says(outside, task, tmp_path):
    from dataclasses import replace

    import your_method

    from benchmark.plan.stage import Output
    from benchmark.vision.network import build_model, freeze, load
    from tests.bench import PlainBench

    def given(seed: int) -> Output:
        torch.manual_seed(seed)
        network = freeze(build_model(task.model, 10), task.model, 10, task.recipe)
        moved = {name: tensor + 1 if "running" in name else tensor for name, tensor in network.tensors.items()}
        return Output(network=replace(network, tensors=moved), values={"acc_pct": 10.0 + seed})

    first, second = given(0), given(1)
    found = your_method.average(PlainBench(), your_method.Averaging(task=task, first_epoch=2), a=first, b=second)
    for name, tensor in found.network.tensors.items():
        if "running" in name or "num_batches" in name:
            assert not torch.equal(tensor, first.network.tensors[name]), "statistics belong to the mean network"
        else:
            mean = (first.network.tensors[name] + second.network.tensors[name]) / 2
            assert torch.allclose(tensor, mean, atol=1e-6)
    assert found.values["acc_best_of_averaged_pct"] == 11
    assert load(found.network)(torch.ones(1, 3, 32, 32)).shape == (1, 10)


def test_it_is_planned_with_the_shared_base_training(outside, capsys):
    assert main(["plan", "--check", *_flag(outside), "method=your_method", "scale=smoke"]) == 0
    planned = capsys.readouterr().out
    assert planned.count("your_method:train_on") == 5
    assert planned.count("your_method:average") == 1
    assert main(["plan", "method=baseline", "scale=smoke"]) == 0
    base = re.search(r"methods.training:train +(\w+)", planned)[1]
    assert f"methods.training:train                   {base}" in capsys.readouterr().out


def test_its_name_is_in_help_and_in_near_name_errors(outside, capsys):
    assert main(["run", "--help", *_flag(outside)]) == 0
    assert re.search(r"method=.*\| your_method", capsys.readouterr().out)
    assert main(["run", "method=your_methd", *_flag(outside)]) == 1
    assert "unknown method 'your_methd'; did you mean your_method?" in capsys.readouterr().err
    assert main(["run", "method=your_method", "method.epoch=3", *_flag(outside)]) == 1
    assert "did you mean method.epochs" in capsys.readouterr().err
    assert main(["run", "method=your_method"]) == 1, "without the flag there is no such name"
    assert "unknown method 'your_method'" in capsys.readouterr().err


def test_its_name_is_in_sweeps_and_studies(outside):
    (outside / "configs" / "experiment").mkdir()
    (outside / "configs" / "experiment" / "mine.yaml").write_text(
        "- overrides: [scale=smoke]\n  sweep: {method: [baseline, your_method]}\n"
    )
    assert take_config_dirs(["seed=1", *_flag(outside)]) == ["seed=1"]
    assert study.sweep(["method=glob(*your*)"]) == [["method=your_method"]]
    (block,) = study.expand("mine")
    assert block.jobs == [["scale=smoke", f"method={name}"] for name in ("baseline", "your_method")]
    with pytest.raises(ConfigError, match=r"unknown experiment 'min'; did you mean .*mine"):
        study.expand("min", [])
    assert config.compose(["method=your_method"]).method.lr == 0.02


def test_hydra_shows_it_too(outside, tmp_path):
    env = {"PYTHONPATH": os.pathsep.join([str(outside), str(ROOT)])}
    shown = cli("run", "--cfg", "job", "method=your_method", *_flag(outside), cwd=tmp_path, env=env)
    assert shown.returncode == 0, shown.stderr
    assert "_target_: your_method.WeightAveraging" in shown.stdout


def test_a_method_that_cannot_be_imported_names_the_remedy(tmp_path, capsys):
    assert main(["plan", "--config-dir", str(EXAMPLE / "configs"), "method=your_method"]) == 1
    assert "cannot import 'your_method' (No module named 'your_method'): is its folder on PYTHONPATH?" in (
        capsys.readouterr().err
    )
    take_config_dirs([])


# --- the folders ---------------------------------------------------------------------------------------------------


def _folder(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("name: x\n")
    root.mkdir(exist_ok=True)
    return root


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "holds no YAML file in a folder named"),
        (("methods/mine.yaml",), "unknown group 'methods'; did you mean method"),
        (("mine.yaml",), "mine.yaml must lie in a folder named"),
        (("method/baseline.yaml",), r"method/baseline.yaml has the name of .*configs/method/baseline.yaml"),
    ],
)
def test_a_folder_that_would_be_misread_is_refused(tmp_path, files, said):
    with pytest.raises(ConfigError, match=said):
        take_config_dirs(["--config-dir", str(_folder(tmp_path / "mine", *files))])
    take_config_dirs([])


def test_several_folders_add_up_but_never_hide_one_another(tmp_path):
    one, two = _folder(tmp_path / "it's one", "method/one.yaml"), _folder(tmp_path / "a, b", "model/own/two.yaml")
    assert take_config_dirs([f"--config-dir={one}", "seed=1", "--config-dir", str(two), "-m"]) == ["seed=1", "-m"]
    assert "one" in config.names("method")
    assert "own/two" in config.names("model")
    composed = config.compose(["method=one", "model=own/two"])
    assert (composed.method.name, composed.model.name) == ("x", "x"), "whatever signs a path has"
    with pytest.raises(ConfigError, match="has the name of"):
        take_config_dirs(
            ["--config-dir", str(one), "--config-dir", str(_folder(tmp_path / "three", "method/one.yaml"))]
        )
    for word in ("--config-dir", "--config-dir="):
        with pytest.raises(ConfigError, match="needs a folder"):
            take_config_dirs([word])
    with pytest.raises(ConfigError, match="there is no such folder"):
        take_config_dirs(["--config-dir", str(tmp_path / "absent")])
    assert take_config_dirs(["seed=1"]) == ["seed=1"]
    assert "one" not in config.names("method")


# --- a seventh criterion -------------------------------------------------------------------------------------------

LARGEST = """
def largest(subject, power: float = 1.0):
    \"\"\"The largest absolute weight of each filter.\"\"\"
    return {name: weight.flatten(1).abs().amax(1) ** power for name, weight in subject.weights().items()}
"""
LARGEST_YAML = """
defaults:
  - pruning/_family@_here_
  - _self_
_target_: methods.pruning.plan.Pruning
name: pruning/largest
criterion: largest:largest
settings: {power: 2.0}
"""


@pytest.fixture
def seventh(outside) -> Path:
    (outside / "largest.py").write_text(LARGEST)
    (outside / "configs" / "method" / "pruning").mkdir()
    (outside / "configs" / "method" / "pruning" / "largest.yaml").write_text(LARGEST_YAML)
    return outside


def test_a_seventh_criterion_is_one_function_and_one_yaml(seventh, capsys):
    words = [*_flag(seventh), "method=pruning/largest", "scale=smoke", "model=repdistiller/resnet8"]
    assert main(["plan", "--check", *words]) == 0
    planned = capsys.readouterr().out
    assert [name for name in ("mask", "finetune", "shrink") if f"methods.pruning.stages:{name}" in planned] == [
        "mask", "finetune", "shrink",
    ]  # fmt: skip  # a line reads best
    assert main(["run", *words, "method.backend=nni"]) == 1
    assert "backend=nni has no pruner for largest:largest" in capsys.readouterr().err
    assert main(["plan", "--check", *words, "method.settings.power=much"]) == 1
    assert "setting power" in capsys.readouterr().err
    assert main(["plan", "--check", *words, "+method.settings.powr=2"]) == 1
    assert "takes no setting powr; it takes power" in capsys.readouterr().err


def test_a_seventh_criterion_scores_and_masks_a_real_network(seventh):
    from methods.pruning.criteria.subject import Subject
    from methods.pruning.masks import choose
    from methods.pruning.removal import shrink
    from methods.pruning.scores import score
    from methods.pruning.trace import follow
    from tests.pruning.golden import RECIPE

    take_config_dirs(_flag(seventh))
    parsed = config.parse(config.compose(["method=pruning/largest", "model=repdistiller/resnet8"]), CPU)[0]
    choice = parsed.build_method().choice(0.5)
    model = resnet8(classes=10)
    channels = follow(model)
    names = [name for name in channels.convolutions() if channels.removable(name)]
    scores = score(Subject(model, names, [], RECIPE), choice.scoring)
    for name in names:
        assert torch.equal(scores[name], model.get_submodule(name).weight.abs().amax((1, 2, 3)).square())
    masks = choose(channels, scores, dict.fromkeys(names, 0.5), choice.mode)
    for name, mask in masks.items():
        assert (~mask).sum() == len(mask) // 2
        assert scores[name][~mask].max() <= scores[name][mask].min()
    assert shrink(model, masks)(torch.ones(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.slow
def test_a_seventh_criterion_lives_a_whole_life(seventh, tmp_path):
    env = {"PYTHONPATH": os.pathsep.join([str(seventh), str(ROOT)])}
    words = [*TINY, *_paths(tmp_path), *_flag(seventh), "model.builder=tests.pruning.nets:mini", "model.name=mini"]
    ran = cli("run", "method=pruning/largest", "method.finetune_epochs=1", *words, cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"pruning/largest +mini +1 ", ran.stdout)
