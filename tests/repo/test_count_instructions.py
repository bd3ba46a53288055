"""The guard of tests/c/count_instructions.py sees what it is there for; .ci/run runs it."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "c" / "count_instructions.py"


@pytest.fixture(scope="module")
def guard():
    spec = importlib.util.spec_from_file_location("count_instructions", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LIMITS = {("avx2", "gcc-12", "relu"): (2.0, 65536, 128)}


def test_four_per_cent_pass_and_what_is_less_is_said(guard, capsys):
    assert guard.compare("avx2", "gcc-12", {"relu": (2.08, 65536, 128)}, LIMITS) == []
    assert guard.compare("avx2", "gcc-12", {"relu": (1.8, 65536, 0)}, LIMITS) == []
    assert "fewer than 2.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("compiler", "found", "said"),
    [
        ("gcc-12", {"relu": (2.12, 65536, 128)}, "6.0 % more"),
        ("gcc-12", {"relu": (2.0, 65537, 128)}, "65537 multiply-adds"),
        ("gcc-12", {"relu": (2.0, 65536, 129)}, "allocates 129 bytes"),
        # another compiler's instructions are not compared, its multiply-adds and memory are
        ("gcc-13", {"relu": (9.0, 65536, 129)}, "allocates 129 bytes"),
        ("gcc-12", {"relu": (2.0, 65536, 128), "gelu": (1.0, 1, 0)}, "gelu: not in the table"),
        ("gcc-12", {}, "relu: in the table, but not measured"),
    ],
)
def test_more_is_an_error(guard, compiler, found, said):
    (line,) = guard.compare("avx2", compiler, found, LIMITS)
    assert said in line


def test_the_table_knows_every_case(guard):
    """A case that is added to counts.c gets its limits in the same commit."""
    source = (PATH.parent / "counts" / "counts.c").read_text()
    cases = set(guard.re.findall(r"CASE\((\w+)\)[,\s]", source))
    limits = guard.read_limits()
    for level in guard.LEVELS:
        assert {kernel for a_level, _, kernel in limits if a_level == level} == cases - {"name"}
