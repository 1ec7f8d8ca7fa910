"""The code of a network of one's own. What it computes stands in no YAML, so the text of its files is in its key."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

SUITE = ("benchmark", "methods")
"""Packages whose code is known by its commit, and by the versions of stages."""

INSTALLED = ("site-packages", "dist-packages")


def digest(builder: str) -> str:
    """The beginning of the SHA-256 of the files that build a network, by `module:function`; empty for one of the
    suite's own, and where there is no such file.

    The files are that of the module, and those beside it that it imports, theirs too; of an installed package its own.
    Nothing is imported to find them. Where they lie does not count, and their names and texts do, comments included.
    """
    module = builder.partition(":")[0]
    if module.partition(".")[0] in SUITE:
        return ""
    root = next((root for root in map(Path, sys.path) if _file(root, module)), None)
    if root is None:
        return ""
    found = hashlib.sha256()
    for path in sorted(_files(root, module)):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode())
        found.update(text)
    return found.hexdigest()[:12]


def _files(root: Path, module: str) -> set[Path]:
    """The file of a module, and those below a folder that it imports."""
    top = module.partition(".")[0]
    waiting, seen, files = [module], set[str](), set[Path]()
    while waiting:
        name = waiting.pop()
        foreign = name.partition(".")[0] in SUITE or (root.name in INSTALLED and name.partition(".")[0] != top)
        if name in seen or foreign:
            continue
        seen.add(name)
        path = _file(root, name)
        if path is None:
            continue  # a name within a module, or what lies elsewhere: Python's own, torch
        files.add(path)
        parents = name.split(".")[:-1]
        waiting += [".".join(parents[:count]) for count in range(1, len(parents) + 1)]
        waiting += _imported(path, name)
    return files


def _imported(path: Path, name: str) -> Iterator[str]:
    """The dotted names that a file imports, those of a `from` with and without what is taken from them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # its import will say so
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from filter(None, [base, *(".".join(filter(None, [base, alias.name])) for alias in node.names)])


def _file(root: Path, module: str) -> Path | None:
    """The file of a module below a folder, if it is there."""
    place = root.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
