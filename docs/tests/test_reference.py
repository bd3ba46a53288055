"""The reference has every public name."""

import ast
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import fastdrop

PACKAGE = Path(fastdrop.__file__).parent
MODULES = {
    "fastdrop": "__init__.py",
    "fastdrop.nn": "nn/__init__.py",
    "fastdrop.optim": "optim/__init__.py",
    "fastdrop.schedules": "schedules.py",
    "fastdrop.dask": "interop/dask/__init__.py",
    "fastdrop.mpi": "interop/mpi/__init__.py",
    "fastdrop.torch": "interop/torch/__init__.py",
}
MORE = {"fastdrop": ["MLPClassifier", "MLPRegressor"]}


def public_names(path):
    """What a module's source assigns to ``__all__``; the module need not be importable."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return [name for name in ast.literal_eval(node.value) if not name.startswith("__")]
    raise AssertionError(f"{path} has no __all__")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(html, module):
    entries = InventoryFile.loads((html / "objects.inv").read_bytes(), uri="").data
    known = {name for kind, names in entries.items() if kind.startswith("py:") for name in names}
    names = [*public_names(PACKAGE / MODULES[module]), *MORE.get(module, [])]
    assert len(names) > 2
    assert [name for name in names if f"{module}.{name}" not in known] == []
