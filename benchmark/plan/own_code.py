"""The code of a network of one's own. What it computes stands in no YAML, so the text of its files is in its key."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

SUITE = ("benchmark", "methods")
"""Packages whose code is known by its commit, and by the versions of stages."""

INSTALLED = ("site-packages", "dist-packages")


@functools.cache  # what a process has imported is what the files said when it began
def digest(builder: str) -> str:
    """The beginning of the SHA-256 of the files that build a network, by `module:function`; empty for one of the
    suite's own, and where there is no such file.

    The files are that of the module, and those beside it that it imports, theirs too; of an installed package its own.
    Nothing is imported to find them. Where they lie does not count, and their names and texts do, comments included.
    """
    module = builder.partition(":")[0]
    root = None if module.partition(".")[0] in SUITE else _root(module)
    if root is None:
        return ""
    found = hashlib.sha256()
    for path in sorted(_files(root, module)):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode())
        found.update(text)
    return found.hexdigest()[:12]


def file_digest(module: str) -> str:
    """The SHA-256 of a module's file as it is now; empty where there is none."""
    root = _root(module)
    path = _file(root, module) if root else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


def _root(module: str) -> Path | None:
    """The folder from which a module is imported."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)  # of a name without a dot it imports nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])]
    return next((Path(place).parent for place in places if _file(Path(place).parent, module)), None)


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
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)
