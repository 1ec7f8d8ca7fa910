"""What pyproject.toml cannot say: in a wheel the configs lie within the package, as benchmark.configs (in the
repository they stay at the top level), and benchmark/built_from.txt names the commit, since no git is asked there."""

import subprocess
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FOLDERS = ("benchmark", "methods", "configs")


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    """The commit that is being built, with '+dirty' where the code differs from it; 'unknown' outside its checkout."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return "unknown"
        changed = _git("status", "--porcelain", "--untracked-files=all", "--", *FOLDERS)
        return _git("rev-parse", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


class BuildPy(build_py):
    """Writes the commit beside the code of a wheel; an editable install asks git."""

    def run(self) -> None:
        """Build, then say what from."""
        super().run()
        if not self.editable_mode:
            (Path(self.build_lib) / "benchmark" / "built_from.txt").write_text(commit() + "\n")


setup(
    packages=[*find_packages(include=["benchmark", "benchmark.*", "methods", "methods.*"]), "benchmark.configs"],
    package_dir={"benchmark.configs": "configs"},
    package_data={
        "benchmark.configs": ["**/*.yaml"],
        "benchmark": ["py.typed"],
        "benchmark.run": ["*.csv"],
        "benchmark.report.page": ["*.html", "*.css", "*.js", "vendor/*"],
        "methods": ["py.typed"],
    },
    cmdclass={"build_py": BuildPy},
)
