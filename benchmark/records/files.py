"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmark.errors import UserError


class StoreError(UserError):
    """A folder cannot be written or a file cannot be read; the message says which, why, and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises StoreError."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}; restore it, or remove it to measure again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds no JSON object; restore it, or remove it to measure again")
    return value


def replace(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, in place of an older one; `durable` waits until it lies on the disk.

    Raises StoreError.
    """
    try:
        os.replace(_write_beside(path, content, durable), path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def create(path: Path, content: bytes) -> bool:
    """Write a new file whole or not at all; False where the name is taken, also by a process that was quicker."""
    try:
        beside = _write_beside(path, content)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def _write_beside(path: Path, content: bytes, durable: bool = True) -> Path:
    """The content under a temporary name in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
