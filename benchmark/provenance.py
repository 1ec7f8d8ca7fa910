"""Where a number comes from: commit, versions, host. Torch-free."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "nvidia-ml-py", "nni", "safetensors")


def now() -> str:
    """This moment in UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@functools.cache
def commit() -> str:
    """The commit of this checkout, with '+dirty' where tracked files differ from it; 'unknown' outside git."""
    folder = Path(__file__).resolve().parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        # results are data that the work itself adds to: they do not make the code dirty
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)results")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+dirty" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that decide what a step costs."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Everything a record says of the software and host it was made by."""
    return {"commit": commit(), "versions": versions(), "machine": platform.machine()}


def package_version(name: str) -> str:
    """An installed package's version, or 'absent'."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
