"""The command line as a user meets it: in processes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import main

ROOT = Path(__file__).parents[2]
TINY = ("model.builder=tests.tiny:tiny", "model.name=tiny", "data=synthetic", "scale=smoke")


def cli(*words: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _paths(root: Path) -> list[str]:
    return [f"paths.{name}={root / name}" for name in ("data", "artifacts", "results")]


@pytest.mark.slow
def test_run_report_check_and_plan_tell_one_story(tmp_path):
    planned = cli("plan", *TINY, *_paths(tmp_path))
    assert planned.returncode == 0
    assert planned.stdout.count("  to do") == 3
    ran = cli("run", *TINY, *_paths(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "note: train_precision is fp32" in ran.stderr
    assert "~ estimated, not measured" in ran.stdout
    assert re.search(r"baseline +tiny +1 .*~\S+ ±\S+%.* E", ran.stdout)
    reported = cli("report", "scale=smoke", "--no-figures", *_paths(tmp_path))
    assert reported.stdout == ran.stdout
    checked = cli("check", "scale=smoke", *_paths(tmp_path))
    assert checked.returncode == 0, checked.stdout
    assert "3 records" in checked.stdout
    after = cli("plan", *TINY, *_paths(tmp_path))
    assert after.stdout.count("  recorded") == 3
    assert "to do: 0 stage(s)" in after.stdout
    other = cli("plan", *TINY, *_paths(tmp_path), "seed=1")
    assert re.search(r"methods.training:train .* to do, about \d+ s, \S+ W.h", other.stdout), (
        "a sibling record gives an estimate"
    )


@pytest.mark.slow
def test_the_csv_files_hold_the_promised_columns(tmp_path):
    import pandas as pd

    assert cli("run", *TINY, *_paths(tmp_path)).returncode == 0
    promised = {
        "stages": "experiment method model teacher data scale seed profile train_precision deploy_precision phase stage key kind "
        "energy_wh energy_ci95_wh repeated_wh seconds mean_power_w gpu_util_pct mem_util_pct n_inferences batch_size acc_pct "
        "energy_source grade machine device_name commit created settings shared_by first_mention",
        "summary": "experiment method model teacher data scale profile train_precision deploy_precision engine tec_wh "
        "tec_ci95_wh iec_wh iec_ci95_wh deploy_wh spent_making_wh acc_pct network_acc_pct g_500m g_1b tau params macs n_seeds "
        "train_machine infer_machine energy_source grade settings",
    }
    for name, columns in promised.items():
        table = pd.read_csv(tmp_path / "results" / f"{name}.csv")
        assert set(columns.split()) <= set(table.columns)
    stages = pd.read_csv(tmp_path / "results" / "stages.csv")
    assert list(stages["kind"]) == ["TEC", "deploy", "IEC"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "method=basline"], "did you mean baseline"),
        (["run", "model=vgg16"], "did you mean nni/vgg16"),
        (["run", "hardware=gpu"], "error: "),
        (["runn"], "unknown command 'runn'; did you mean run"),
        (["study"], "exactly one experiment=NAME; there are baselines, demo"),
        (["study", "demo"], "did you mean demo?"),
        (["run", "method=baseline", "method.sparsity=0.3"], "Could not override 'method.sparsity': it has no settings"),
        (["plan", "method=pruning/l1,pruning/fpgm"], "or plan -m method=pruning/l1,pruning/fpgm to see it first"),
        (["run", "--dry-run"], "python -m benchmark plan with the same words"),
        (["run", "-m", "--dry-run"], "python -m benchmark plan with the same words"),
        (["study", "experiment=baseline"], "did you mean baselines"),
        (["run", "-m", "model=nni/vgg13,nni/vgg61"], "unknown model 'nni/vgg61'"),
        (["run", "recipe.lr=0.05,0.1"], "several values need a sweep (run -m)"),
        (["run", "-m", "--cfg", "job", "model=nni/vgg13,nni/vgg16"], "-m stands alone"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_failure(words, said):
    done = cli(*words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def _refused(capsys, *words: str) -> str:
    """What a command says that fails in this process, where torch is imported already."""
    assert main([*words, "hardware=cpu"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == said[-1:]
    return said[-1]


def test_a_network_that_cannot_be_built_is_one_line_and_a_failure(capsys):
    said = _refused(capsys, "run", "model.builder=tests.tiny:absent", "data=synthetic", "scale=smoke")
    assert "model nni/vgg16 cannot be built" in said


def test_missing_data_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, capsys):
    for name, value in {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }.items():
        monkeypatch.setenv(name, value)
    said = _refused(capsys, "run", "model.builder=tests.tiny:tiny", "scale=smoke", *_paths(tmp_path))
    assert "cifar-100-python/train" in said


def test_truncated_data_is_one_line(tmp_path, capsys):
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(b"short")
    said = _refused(capsys, "run", "model.builder=tests.tiny:tiny", "scale=smoke", *_paths(tmp_path))
    assert "train is damaged (5 bytes" in said


def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "results").write_text("a file, no folder")
    assert "cannot write to" in _refused(capsys, "run", *TINY, *_paths(tmp_path))


def test_report_without_runs_says_so(tmp_path, capsys):
    assert "does not exist" in _refused(capsys, "report", *_paths(tmp_path))
    (tmp_path / "results").mkdir()
    assert "there are no runs" in _refused(capsys, "report", *_paths(tmp_path))


def test_hydras_own_flags_work():
    shown = cli("run", "--cfg", "job", "model=nni/vgg13")
    assert shown.returncode == 0
    assert "name: nni/vgg13" in shown.stdout


@pytest.mark.slow
def test_a_sweep_ends_in_one_table_and_leaves_no_folder_of_hydras(tmp_path):
    swept = cli("run", "-m", *TINY, *_paths(tmp_path), "recipe.lr=0.05,0.1", cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    assert len(re.findall(r"baseline +tiny", swept.stdout)) == 2
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_an_error_in_a_sweep_is_a_failure_of_the_sweep(tmp_path):
    swept = cli("run", "-m", *TINY, *_paths(tmp_path), "recipe.lr=0.05,1e38", cwd=tmp_path)
    assert swept.returncode == 1
    assert "the training loss became" in swept.stderr
    assert "Traceback" not in swept.stderr


def test_help_lists_every_choice():
    done = cli("run", "--help")
    assert done.returncode == 0
    for word in ("nni/resnet50", "cifar10", "smoke", "nni160", "baseline", "deploy_precision: fp32"):
        assert word in done.stdout


PEEK = "import sys, runpy; sys.argv = ['benchmark', *sys.argv[1:]]\ntry: runpy.run_module('benchmark', run_name='__main__')\n"
PEEK += "except SystemExit: pass\nprint('LOADED', *sorted(m for m in sys.modules if '.' not in m))"


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {"torch", "hydra", "numpy", "pandas", "pydantic", "rich"}),
        (["run", "--help"], {"torch", "hydra", "pandas"}),
        (["plan", "scale=smoke"], {"torch", "torchvision", "nni", "safetensors", "pandas"}),
        (["device"], {"torch", "torchvision", "nni"}),
    ],
)
def test_what_needs_no_torch_imports_none(words, absent, tmp_path):
    paths = _paths(tmp_path) if words[0] == "plan" else []
    done = subprocess.run(
        [sys.executable, "-c", PEEK, *words, *paths], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert loaded, done.stderr
    assert not loaded & absent


def test_probing_a_machine_without_a_gpu_says_why_and_keeps_what_it_knows(tmp_path):
    done = cli("device", "--probe", "scale=smoke", *_paths(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "note     no NVML meter to probe: nvml: " in done.stdout
    (path,) = (tmp_path / "results" / "devices").glob("*/*.json")
    assert f"kept     {path}" in done.stdout
    facts = json.loads(path.read_text())
    assert path.stem == facts["id"]
    assert facts["host"]["cpu_model"]
    assert facts["created"]
    assert not {"torch", "numpy"} & set(facts["device"])
