"""Private attributes of masks and streams are used in their own modules only."""

import ast
from pathlib import Path

import pytest

import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
HOMES = {"mask.py", "noise.py", "stream.py"}  # a noise has a shape and scale of its own
PRIVATE = {
    name
    for kind in (fastdrop.Mask, fastdrop.MaskStream)
    for name in vars(kind)
    if name.startswith("_") and not name.endswith("_")
}


def borrowed(source):
    """(line, name) of each of these attributes that is not one of `self`."""
    return [
        (node.lineno, node.attr)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in PRIVATE
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    ]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_other_module_uses_them(path):
    name = str(path.relative_to(PACKAGE))
    if name in HOMES:
        return
    assert borrowed(path.read_text()) == []


def test_a_use_is_found():
    assert borrowed("def f(mask):\n    return mask._bits\n") == [(2, "_bits")]
    assert {"_bits", "_shape", "_rows", "_key0", "_position"} <= PRIVATE
