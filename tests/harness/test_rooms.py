"""The rooms of the house: imports go one way, types included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "benchmark"


def _modules() -> dict[str, Path]:
    """Every module of benchmark/."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["benchmark", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
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
    assert len(graph) > 100
    assert _circle(graph) == []


ROOMS = ["acceptance", "windows", "judge", "timeline", "meters"]
"""Of energy's wing: each may import what stands right of it."""


def test_energys_rooms_have_arrows_one_way_and_stand_on_nothing_of_the_harness():
    below = {"benchmark.errors", "benchmark.intervals"}
    seen = 0
    for name, imported in _graph().items():
        parts = name.split(".")
        if parts[:2] != ["benchmark", "energy"] or len(parts) < 3 or parts[2] == "__main__":  # its door
            continue
        for other in imported - below:
            assert other.startswith("benchmark.energy."), f"{name} imports {other}"
            assert ROOMS.index(other.split(".")[2]) >= ROOMS.index(parts[2]), f"{name} imports {other}"
            seen += 1
    assert seen > 30


def test_no_room_or_file_of_energy_shares_a_name_with_the_harness():
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[parts[0] == "energy"] |= set(parts) - {"__init__", "__main__", "energy"}
    assert names[True] & names[False] == set()
    assert {"meters", "tracer"} <= names[True]


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
