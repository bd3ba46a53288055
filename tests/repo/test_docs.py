"""Documentation that runs: docstring examples, the README's code, the README's two commands."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fastdrop

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "fastdrop").rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)


def blocks(path, language):
    """The fenced code blocks of a Markdown file in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


# What a module of fastdrop.interop, or the door to it, needs to be imported.
NEEDED = {"dask": "dask.array", "mpi": "mpi4py.MPI", "torch": "torch"}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    for package in [NEEDED[part] for part in name.split(".") if part in NEEDED]:
        pytest.importorskip(package)
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_public_names_have_examples():
    def documented(name):
        value = getattr(fastdrop, name)
        # Modules of the package are documented name by name.
        return type(value).__name__ == "module" or ">>>" in (value.__doc__ or "")

    names = [name for name in fastdrop.__all__ if not name.startswith("__")]
    assert [name for name in names if not documented(name)] == []


def test_the_reference_has_every_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(
        re.findall(r"^\.\. auto(?:class|function|module):: fastdrop\.([\w.]+)$", pages, re.M)
    )
    names = {name for name in fastdrop.__all__ if not name.startswith("__")}
    assert names - listed == set()


def test_readme_code_runs():
    code = blocks(ROOT / "README.md", "python")
    assert len(code) == 4
    exec(compile("\n".join(code[:3]), "README.md", "exec"), {})


def test_readme_code_for_torch_runs():
    pytest.importorskip("torch")
    exec(compile(blocks(ROOT / "README.md", "python")[3], "README.md", "exec"), {})


def test_no_table_of_the_readme_is_long():
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(tables) == 2
    assert max(table.count("\n") for table in tables) <= 2 + 6


def test_readme_begins_with_two_commands():
    install_and_demo, install_and_test = blocks(ROOT / "README.md", "sh")[:2]
    for command in (install_and_demo, install_and_test):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && ")
    assert install_and_demo.endswith(" -m fastdrop demo\n")
    assert install_and_test.endswith(" -m pytest\n")


# What the code of a page needs beside NumPy, by the page's name.
PAGES_NEED = {
    "pytorch": "torch",
    "larger-than-memory": "dask.array",
    "scaling": "mpi4py.MPI",
}
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TUTORIAL = sorted((ROOT / "docs" / "tutorial").glob("*.md"))


def named(page):
    return str(page.relative_to(ROOT))


def run_blocks(page):
    """Run a page's blocks of Python, those with prompts as doctests, one after the other."""
    names = {"__name__": "page"}
    runner = doctest.DocTestRunner()
    for number, block in enumerate(blocks(page, "python")):
        where = f"{named(page)}, block {number}"
        if block.startswith(">>> "):
            test = doctest.DocTestParser().get_doctest(block, names, where, str(page), 0)
            runner.run(test, clear_globs=False)
            names.update(test.globs)
        else:
            exec(compile(block, where, "exec"), names)
    assert runner.summarize(verbose=False).failed == 0
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert ">>> " not in outside, "prompts outside of ``` are shown as quotations, and do not run"


# The tutorial runs as notebooks, in docs/tests.
@pytest.mark.parametrize("page", [page for page in PAGES if page not in TUTORIAL], ids=named)
def test_code_of_pages(page, tmp_path, monkeypatch):
    if page.stem in PAGES_NEED:
        pytest.importorskip(PAGES_NEED[page.stem])
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


@pytest.mark.parametrize("page", TUTORIAL, ids=named)
def test_the_notebooks_are_those_of_the_pages(page):
    from tools import notebook

    assert page.with_suffix(".ipynb").read_text() == notebook.as_text(page)
    assert sum(kind == "code" for kind, _ in notebook.cells(page)) > 3


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=named)
def test_links_between_pages(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
