"""Habits that a machine can watch: short functions, few arguments, no test without an assertion."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for folder in ("benchmark", "methods", "scripts", "examples") for path in sorted((ROOT / folder).rglob("*.py"))
]
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
    functions = {f.name: f for f in _functions(path)}
    assert [name for name in functions if name.startswith("test_") and not _asserts(name, functions)] == []


CHANGING = {
    "compress",
    "time",
    "time_ns",
    "monotonic",
    "now",
    "today",
    "uuid4",
    "random",
    "token_hex",
    "mkdtemp",
    "getpid",
}
"""Calls whose value may be another at the next collection."""


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_cases_are_the_same_at_every_collection(path):
    """Workers of xdist collect at different moments, and refuse to run where the names of their tests differ."""
    called = [
        call
        for f in _functions(path)
        for each in f.decorator_list
        for call in ast.walk(each)
        if isinstance(call, ast.Call)
    ]
    found = [
        ast.unparse(call) for call in called if getattr(call.func, "attr", getattr(call.func, "id", "")) in CHANGING
    ]
    assert [text for text in found if "mtime=0" not in text] == []


def _asserts(name: str, functions: dict[str, ast.FunctionDef], asked: frozenset[str] = frozenset()) -> bool:
    """Whether a function of a file has an assert, expects an exception or a warning, or calls one of the file's that
    does."""
    for node in ast.walk(functions[name]):
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="pytest"), attr="raises" | "warns" | "fail"):
                return True
            case ast.Attribute(value=ast.Attribute(attr="testing"), attr=attr) if attr.startswith("assert_"):
                return True
            case ast.Name(id=called) if called in functions and called not in asked | {name}:
                if _asserts(called, functions, asked | {name}):
                    return True
    return False


@pytest.mark.parametrize(
    ("body", "asserts"),
    [
        ("assert found", True),
        ("with pytest.raises(ValueError): check()", True),
        ("near(1)", True),
        ("torch.testing.assert_close(1, 1)", True),
        ("mock.assert_it()", False),
        ("check(near)", False),
        ("model.check(task)", False),
        ("fail = lambda: None; fail()", False),
        ("test_it()", False),
        ("print('assert')", False),
    ],
)
def test_the_rule_knows_an_assertion_from_a_word(body, asserts):
    code = f"def near(x):\n    assert x\ndef check(*words):\n    pass\ndef test_it():\n    {body}"
    functions = {f.name: f for f in ast.walk(ast.parse(code)) if isinstance(f, ast.FunctionDef)}
    assert _asserts("test_it", functions) == asserts
