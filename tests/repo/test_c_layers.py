"""The rooms of src: who may include whom, and that a static function's name is found once."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
FILES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.[ch]"))

# What a family may include beside its own folder: the floors below, and the public headers.
PUBLIC = {"fastdrop.h", "kernels.h"}
# The types that fastdrop.h and kernels.h hand from a caller to a family's kernels.
PUBLIC_TYPES = {
    "dropout/dropouts.h",
    "masks/noise.h",
    "matmul/gemm.h",
    "matmul/product.h",
    "matmul/spmm.h",
    "optim/update.h",
}
BELOW = {
    "runtime": set(),
    "simd": {"runtime"},
    "masks": {"runtime", "simd"},
    "dropout": {"runtime", "simd"},
    "matmul": {"runtime", "simd"},
    "optim": {"runtime", "simd"},
}
# These compile every family for one instruction set, so they include the bodies of all.
COMPILE_EVERYTHING = {"simd/kernels_body.h"}
# One file per instruction set defines the same operations; the compiler sees one of them at a time.
SAME_NAMES = re.compile(r"simd/(simd_\w+|half|element)\.h")


def includes(text: str) -> list[str]:
    return re.findall(r'^#\s*include\s+"([^"]+)"', text, re.MULTILINE)


def upward(path: str, names: list[str]) -> list[str]:
    """Those of the included names that stand above the file or in another family."""
    folder = path.split("/")[0] if "/" in path else ""
    if path in COMPILE_EVERYTHING:
        return [name for name in names if name.split("/")[0] not in BELOW]
    if not folder:
        return [name for name in names if name not in PUBLIC | PUBLIC_TYPES]
    allowed = {folder} | BELOW[folder]
    return [name for name in names if name not in PUBLIC and name.split("/")[0] not in allowed]


@pytest.mark.parametrize("path", FILES)
def test_nothing_includes_upwards(path):
    names = includes((SRC / path).read_text())
    assert set(names) <= set(FILES), "paths are written from src, as in runtime/bits.h"
    assert upward(path, names) == []


def test_an_upward_include_is_seen():
    assert upward("runtime/bits.h", ["masks/philox.h"]) == ["masks/philox.h"]
    assert upward("matmul/spmm.c", ["optim/update.h", "kernels.h"]) == ["optim/update.h"]
    assert upward("fastdrop.h", ["matmul/packed.h"]) == ["matmul/packed.h"]


def test_every_folder_is_a_room():
    assert {path.split("/")[0] for path in FILES if "/" in path} == set(BELOW)
    assert {path for path in FILES if "/" not in path} == PUBLIC


def static_functions(text: str) -> set[str]:
    """Names of the static functions that a text defines; R_(name) is one per element type."""
    text = re.sub(r"__attribute__\(\(.*?\)\)(?!\))", "", text)
    result = r"^static\s(?:R_\(\w+\)|[^;{}()=])*?[\s*]"
    name = r"(?:R_\((\w+)\)|((?!R_\()\w+))"
    arguments = r"\([^;{}]*?\)\s*\{"
    return {a or b for a, b in re.findall(result + name + arguments, text, re.MULTILINE)}


def test_static_functions_are_found():
    text = "static inline int a(int b)\n{\n}\nstatic int d(void);\n"
    text += "static R_(vector) R_(c)(const R_(element) *x)\n{\n}\n"
    assert static_functions(text) == {"a", "c"}


def test_names_of_static_functions_are_unique():
    where = defaultdict(set)
    for path in FILES:
        if not SAME_NAMES.fullmatch(path):
            for name in static_functions((SRC / path).read_text()):
                where[name].add(path)
    assert len(where) > 200
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}


def test_the_public_header_is_short():
    assert len((SRC / "fastdrop.h").read_text().splitlines()) <= 200
