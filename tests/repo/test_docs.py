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


def test_the_reference_has_every_name_of_torch():
    names = pytest.importorskip("torch") and fastdrop.torch.__all__
    page = (ROOT / "docs" / "reference" / "index.md").read_text()
    documented = re.findall(r"^\.\. auto(?:class|function):: fastdrop\.torch\.(\w+)$", page, re.M)
    assert sorted(documented) == sorted(names)


def test_readme_code_runs():
    code = blocks(ROOT / "README.md", "python")
    assert code
    exec(compile("\n".join(code), "README.md", "exec"), {})


def test_readme_begins_with_two_commands():
    install_and_demo, install_and_test = blocks(ROOT / "README.md", "sh")[:2]
    for command in (install_and_demo, install_and_test):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && ")
    assert install_and_demo.endswith(" -m fastdrop demo\n")
    assert install_and_test.endswith(" -m pytest\n")


def test_examples_in_pages():
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert doctest.testfile(str(page), module_relative=False).failed == 0


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_between_pages(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
