"""Sphinx settings; build with ``python -m sphinx -W -b html docs docs/_build``."""

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
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
# Attributes as a list in the class: the properties have entries of their own.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"fastdrop {version}"


def outline(source):
    """Return a module's functions and classes by name, with signature and docstring only."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = {node.name for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
            node.body = [ast.Expr(ast.Constant(ast.get_docstring(node, clean=False)))]
        elif isinstance(node, ast.ClassDef):
            node.bases = [base for base in node.bases if getattr(base, "id", None) in names]
            kept = (ast.Expr, ast.FunctionDef)
            node.body = [one for one in node.body if isinstance(one, kept)] or [ast.Pass()]
    namespace = {"__name__": "fastdrop.torch"}
    exec(compile(ast.fix_missing_locations(tree), "<outline>", "exec"), namespace)
    return namespace


def outline_of_fastdrop_torch():
    """Return what autodoc reads in the place of fastdrop.torch, so that it needs no torch."""
    module = types.ModuleType("fastdrop.torch")
    folder = pathlib.Path(fastdrop.__file__).parent / "interop" / "torch"
    for node in ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body:
        package, _, name = getattr(node, "module", "").rpartition(".")
        if package == "fastdrop.interop.torch":
            defined = outline((folder / f"{name}.py").read_text(encoding="utf-8"))
            vars(module).update({alias.name: defined[alias.name] for alias in node.names})
    return module


sys.modules["fastdrop.torch"] = outline_of_fastdrop_torch()


def number_references_in_plain_text(app, what, name, item, options, lines):
    """Turn numpydoc's reference targets into a plain list.

    Every docstring numbers its own references from 1; as targets of one page they would clash.
    """
    for index, line in enumerate(lines):
        line = re.sub(r"\[(\d+)\]_", r"[\1]", line)
        lines[index] = re.sub(r"^(\s*)\.\. \[(\d+)\] ", r"\1*  [\2] ", line)


def setup(app):
    """Register the event handler above."""
    app.connect("autodoc-process-docstring", number_references_in_plain_text)
