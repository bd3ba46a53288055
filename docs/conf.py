"""Sphinx settings; build with ``python -m sphinx -W -b html docs docs/_build``."""

import re

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

html_theme = "alabaster"
html_theme_options = {"description": "Dropout for NumPy, in C", "page_width": "62em"}


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
