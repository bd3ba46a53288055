"""docs/reference/promises.md names tests: they have to be there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Below the promises the page says what no test reaches.
PAGE = (ROOT / "docs" / "reference" / "promises.md").read_text().partition("\n## Coverage")[0]


def promises(text):
    """Pairs of a promise and the cell beside it, from every table of a page."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [row for row in rows if row != ("promise", "test")]


def named_tests(cell):
    """Files and functions that a cell names; a script has no function."""
    return re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", cell)


def functions_of(path):
    """Names of a file's test functions, those in classes too."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def missing(cell):
    """The names of a cell that are no test."""
    return [
        f"{file}::{function}"
        for file, function in named_tests(cell)
        if not (ROOT / file).exists()
        or (function and function not in functions_of(ROOT / file))
        or (not function and file.endswith(".py"))
    ]


def test_there_are_promises():
    assert len(promises(PAGE)) >= 30


@pytest.mark.parametrize(("promise", "cell"), promises(PAGE))
def test_every_promise_names_tests_that_exist(promise, cell):
    assert named_tests(cell) != []
    assert missing(cell) == []


def test_no_test_is_named_outside_the_tables():
    in_tables = [test for _, cell in promises(PAGE) for test in named_tests(cell)]
    with_functions = [test for test in named_tests(PAGE) if test[1]]
    assert set(with_functions) <= set(in_tables)


def test_a_test_that_is_gone_is_noticed():
    text = "| promise | test |\n|---|---|\n"
    text += "| it flies | `tests/repo/test_promises.py::test_it_flies` |\n"
    assert [missing(cell) for _, cell in promises(text)] == [
        ["tests/repo/test_promises.py::test_it_flies"]
    ]
    assert missing("`tests/test_gone.py::test_x`") == ["tests/test_gone.py::test_x"]
    assert missing("`tests/repo/test_promises.py`") == ["tests/repo/test_promises.py::"]
    assert missing("`tests/c/run`") == []
