"""Habits that a machine can watch: short functions, few arguments, no test without an assertion."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("benchmark", "methods", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def _functions(path: Path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_function_is_longer_than_sixty_lines_and_no_file_than_four_hundred(path):
    assert len(path.read_text().splitlines()) <= 400
    long = [f.name for f in _functions(path) if f.end_lineno - f.lineno + 1 > 60]
    assert long == []


def test_most_functions_are_short():
    sizes = sorted(f.end_lineno - f.lineno + 1 for path in SOURCES for f in _functions(path))
    assert sizes[int(0.95 * len(sizes))] < 40


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_functions_and_classes_promise_something(path):
    tree = ast.parse(path.read_text())
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_asserts(path):
    words = ("Assert(", "raises", "warns", "fail", "check", "assert_")
    empty = [
        f.name
        for f in _functions(path)
        if f.name.startswith("test_") and not any(word in ast.dump(f) for word in words)
    ]
    assert empty == []
