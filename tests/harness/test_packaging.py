"""What a user gets who installs the wheel, and what a visitor of the repository relies on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _pip(*words: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _sources(folder: Path) -> Path:
    """What a wheel is built from, copied: a build in the tree would leave its traces there, and find older ones."""
    for name in ("benchmark", "methods", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _environment(folder: Path) -> Path:
    """A new environment that borrows what this one has installed, but not this package (its .pth files are not read)."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / version / "site-packages"
    (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def _run(command: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(command), *words], cwd=cwd, env={**known, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip  # a line each reads best


@pytest.mark.slow
def test_an_installed_wheel_works_the_smoke_life_from_any_folder(tmp_path):
    sources, wheels = _sources(tmp_path / "sources"), tmp_path / "wheels"
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(wheels), ".", cwd=sources)
    (wheel,) = wheels.glob("*.whl")
    programs = _environment(tmp_path / "venv")
    _pip("--python", str(programs / "python"), "install", "--no-deps", "--no-index", "-q", str(wheel))
    shutil.rmtree(sources)
    anywhere = tmp_path / "any where"
    anywhere.mkdir()
    where = _run(programs / "python", "-c", "import benchmark; print(*benchmark.__path__)", cwd=anywhere)
    package = Path(where.stdout.strip())
    assert package.is_relative_to(tmp_path / "venv"), where.stderr
    assert {path.name for path in package.parent.glob("*/py.typed")} == {"py.typed"}
    assert (package / "built_from.txt").read_text() == "unknown\n", "these sources lie in no checkout of their own"
    ours = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml"))
    assert sorted(path.relative_to(package / "configs") for path in (package / "configs").rglob("*.yaml")) == ours
    command = programs / "energy-benchmark"
    ran = _run(command, "run", "data=synthetic", "scale=smoke", "model=repdistiller/resnet8", cwd=anywhere)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"baseline +repdistiller/resnet8 +1 ", ran.stdout)
    assert (anywhere / "results" / ".smoke" / "summary.csv").is_file()
    planned = _run(command, "study", "experiment=smoke", "--dry-run", "hardware=cpu", cwd=anywhere)
    assert "by the model of a CPU" in planned.stdout, planned.stderr
    listed = _run(command, "run", "--help", cwd=anywhere)
    assert "pruning/apoz" in listed.stdout


ALONE = """
import sys
from benchmark.energy import EnergyTracer
with EnergyTracer("cpu") as tracer, tracer.window("alone") as window:
    sum(i * i for i in range(300_000))
assert window.reading.joules > 0, window.reading
heavy = {"torch", "numpy", "pandas", "pydantic", "hydra", "nni"} & set(sys.modules)
print(window.reading.text, sorted(heavy), *__import__("benchmark").__path__)
"""


@pytest.mark.slow
def test_the_tracer_installs_alone_and_needs_nothing_but_python(tmp_path):
    sources, wheels = _sources(tmp_path / "sources"), tmp_path / "wheels"
    folder = "./benchmark/energy"
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(wheels), folder, cwd=sources)
    (wheel,) = wheels.glob("full_cycle_energy_tracer-*.whl")
    _pip("install", "--no-deps", "--no-index", "-q", "--target", str(tmp_path / "alone"), str(wheel))
    shutil.rmtree(sources)
    words = [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'alone')!r}){ALONE}"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert " J (" in done.stdout
    assert done.stdout.strip().endswith(f"[] {tmp_path / 'alone' / 'benchmark'}")


@pytest.mark.slow
def test_an_editable_install_uses_the_repositorys_configs(tmp_path):
    sources, programs = _sources(tmp_path / "sources"), _environment(tmp_path / "venv")
    words = ("install", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-e", ".")
    _pip("--python", str(programs / "python"), *words, cwd=sources)
    (sources / "configs" / "data" / "mine.yaml").write_text("name: mine\nclasses: 3\n")
    listed = _run(programs / "energy-benchmark", "run", "--help", cwd=tmp_path)
    assert re.search(r"data=.*mine", listed.stdout), listed.stderr
    assert not (sources / "benchmark" / "built_from.txt").exists(), "an editable install asks git"


def test_the_tracers_example_measures_a_training(capsys):
    from examples.measure_your_training import main

    main(epochs=2, images=400)
    said = capsys.readouterr().out
    assert re.search(r"^epoch 2: \d+\.\d J, accuracy \d+\.\d %$", said, re.MULTILINE)
    assert re.search(r"^training: ~?\S+ ± \S+ W\.h in \d+\.\d s \(\S+, grade [A-ER]\b.*\)$", said, re.MULTILINE)


def test_continuous_integration_runs_what_a_contributor_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "- run: .ci/run" in workflow
    steps = (ROOT / ".ci" / "run").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = re.findall(r"^step (\d+) make (\S+)", steps, re.MULTILINE)
    assert {target for _, target in asked} <= targets
    longest = steps.partition("\nelse\n")[0]  # of two branches one runs: that with real images takes longer
    assert sum(int(words) for words in re.findall(r"^ *step (\d+) ", longest, re.MULTILINE)) <= 40
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
