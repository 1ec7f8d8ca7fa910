"""Where a number comes from: commit, versions, host. Torch-free."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "nvidia-ml-py", "nni", "safetensors")


def now() -> str:
    """This moment in UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def commit() -> str:
    """The commit of this code, with "+dirty" where code or configuration differs from it: what git says of a checkout,
    or a wheel of what it was built from; "unknown" where neither can tell."""
    folder = Path(__file__).resolve().parent
    built_from = folder.parent / "built_from.txt"
    if built_from.is_file():
        return built_from.read_text().strip()
    try:
        head = _git(folder, "rev-parse", "HEAD")
        code = (":(top)benchmark", ":(top)methods", ":(top)configs")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *code)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+dirty" if changed else "")


def why_unknown() -> str:
    """Why `commit` is unknown, and the remedy."""
    folder = Path(__file__).resolve().parent
    try:
        _git(folder, "rev-parse", "HEAD")
    except FileNotFoundError:
        return "git is not installed"
    except subprocess.CalledProcessError as error:
        words = " ".join(str(error.stderr).split())[:200]
        if "dubious ownership" in words:
            return (
                "this checkout belongs to another user, so git will not read it: "
                f"git config --global --add safe.directory {folder.parents[1]}"
            )
        return f"git says {words!r}: run from a checkout, or from an installed wheel"
    except (OSError, subprocess.SubprocessError) as error:
        return f"git failed ({type(error).__name__})"
    return "git has answered since"


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
    torch = sys.modules.get("torch")
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    return {**found, **({"cuda": str(cuda)} if cuda else {})}


def provenance() -> dict[str, Any]:
    """Everything a record says of the software and host it was made by."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)  # above 0 a stage takes longer beside other work, and costs more
    return {"commit": commit(), "versions": versions(), "architecture": platform.machine(), "niceness": niceness}


def outside(fn: str) -> dict[str, Any]:
    """The SHA-256 of the file that a stage function lies in, where no commit of ours holds it."""
    module = fn.partition(":")[0]
    path = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] in ("benchmark", "methods") or path is None:
        return {}
    return {"outside": {module: hashlib.sha256(Path(path).read_bytes()).hexdigest()}}
