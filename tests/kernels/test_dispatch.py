"""Which instruction sets the dispatcher finds: those that the operating system tells of.

tests/c/run asks it on emulated processors, too.
"""

import re
from pathlib import Path

import pytest

from fastdrop import _backend, _kernels

AVX2 = {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "popcnt"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
# In the order of the dispatcher's table, with Linux's names of the features.
X86_LEVELS = {"baseline": set(), "avx2": AVX2, "avx512": AVX512}


def cpu_flags():
    """Features of the first processor. Linux lists none whose registers it does not save."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((set(line.split()) for line in lines if re.match(r"flags\s*:", line)), set())


@pytest.mark.skipif("sse2" not in cpu_flags(), reason="x86-64 on Linux tells its features")
def test_levels_are_those_of_the_machine():
    found = cpu_flags()
    expected = tuple(name for name, needed in X86_LEVELS.items() if needed <= found)
    assert _kernels.build_info()["isa_available"] == expected


def test_the_best_level_is_used_unless_told_otherwise(monkeypatch):
    before = _kernels.build_info()["isa_used"]
    monkeypatch.delenv("FASTDROP_ISA", raising=False)
    try:
        _backend._compiled()
        info = _kernels.build_info()
        assert info["isa_used"] == info["isa_available"][-1]
    finally:
        _kernels.select_isa(before)
