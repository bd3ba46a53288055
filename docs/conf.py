"""Sphinx settings; build with ``python -m sphinx -W -b html docs docs/_build``."""

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
