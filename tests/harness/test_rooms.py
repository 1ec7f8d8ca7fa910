"""The rooms of the house: imports go one way, types included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "benchmark"


def _modules() -> dict[str, Path]:
    """Every module of benchmark/ outside energy, which is a library of its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["benchmark", *path.relative_to(PACKAGE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith("benchmark.energy"):
            found[name] = path
    return found


def _imports(tree: ast.Module, modules: dict[str, Path]) -> Iterator[str]:
    """Modules that a module imports, anywhere in it: for types only, and within functions, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _graph() -> dict[str, set[str]]:
    modules = _modules()
    return {
        name: {found for found in _imports(ast.parse(path.read_text()), modules) if found in modules} - {name}
        for name, path in modules.items()
    }


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """The first circle found, or nothing."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            found = visit(other, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def test_no_module_of_the_harness_imports_itself_by_a_detour():
    graph = _graph()
    assert len(graph) > 50
    assert _circle(graph) == []


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
