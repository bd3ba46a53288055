"""Sphinx settings; build with ``python -m sphinx -W -b html docs docs/_build``."""

import __future__

import ast
import pathlib
import re
import sys
import types

import fastdrop

project = "fastdrop"
author = "The fastdrop developers"
copyright = "The fastdrop developers"
version = release = fastdrop.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "tests"]
default_role = "py:obj"  # single backticks of docstrings are names

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False  # the tables link to pages written here
numpydoc_show_class_members = False  # the members have entries of their own
numpydoc_class_members_toctree = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"fastdrop {version}"
html_static_path = ["_static"]
html_css_files = ["fastdrop.css"]
html_show_sourcelink = False


DECORATORS = ("classmethod", "property", "staticmethod")


def outline(source, namespace):
    """Define a module's functions and classes, with signature and docstring only."""
    tree = ast.parse(source)
    tree.body = [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    known = {one.name for one in tree.body} | {"RuntimeError", "ValueError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [
                one for one in node.decorator_list if getattr(one, "id", "") in DECORATORS
            ]
            node.body = [ast.Expr(ast.Constant(ast.get_docstring(node, clean=False)))]
        elif isinstance(node, ast.ClassDef):
            node.bases = [base for base in node.bases if getattr(base, "id", None) in known]
            kept = (ast.Expr, ast.FunctionDef)
            node.body = [one for one in node.body if isinstance(one, kept)] or [ast.Pass()]
    # Annotations are not evaluated, since what they name is not imported here.
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.fix_missing_locations(tree), "<outline>", "exec", flags), namespace)


def constants(source):
    """Return the constants of a module, by name: defaults of arguments are such."""
    assigned = [one for one in ast.parse(source).body if isinstance(one, ast.Assign)]
    assigned = [one for one in assigned if isinstance(one.value, ast.Constant)]
    return {one.targets[0].id: one.value.value for one in assigned}


def outline_of(package):
    """Return what autodoc reads in the place of a module whose package need not be installed."""
    name = f"fastdrop.{package}"
    folder = pathlib.Path(fastdrop.__file__).parent / "interop" / package
    sources = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    shared = {"__name__": name}
    for source in sources.values():
        shared |= constants(source)
    tree = ast.parse(sources["__init__"])
    module = types.ModuleType(name, ast.get_docstring(tree, clean=False))
    module.__all__ = []
    for node in tree.body:
        parent, _, child = getattr(node, "module", "").rpartition(".")
        if parent == f"fastdrop.interop.{package}":
            defined = dict(shared)
            outline(sources[child], defined)
            names = [alias.name for alias in node.names]
            vars(module).update({one: defined[one] for one in names})
            module.__all__ += names
    return module


for package in ("mpi", "torch"):
    sys.modules[f"fastdrop.{package}"] = outline_of(package)


def simplify(app, what, name, item, options, lines):
    """Turn reference targets into a plain list, headings into rubrics, paths of pages into links.

    Docstrings of one module refer to the module's references, which are no targets of theirs.
    """
    for index, line in enumerate(lines):
        if what == "module" and index and line and not line.strip("-"):
            lines[index - 1 : index + 1] = [f".. rubric:: {lines[index - 1]}", ""]
            continue
        line = re.sub(r"\[(\d+)\]_", r"[\1]", line)
        line = re.sub(r"(`*)\bdocs/([\w/-]+)\.md\1", r":doc:`/\2`", line)
        lines[index] = re.sub(r"^(\s*)\.\. \[(\d+)\] ", r"\1*  [\2] ", line)


def end_code_at_its_last_line(app, page, source):
    """Take away the empty line that ends a doctest before the fence."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app):
    """Register the event handlers above, one before and after numpydoc's, which adds targets."""
    app.connect("source-read", end_code_at_its_last_line)
    app.connect("autodoc-process-docstring", simplify, priority=400)
    app.connect("autodoc-process-docstring", simplify, priority=600)
