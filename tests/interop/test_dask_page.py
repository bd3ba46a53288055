"""The code of the guide runs as it stands."""

import re
from pathlib import Path

import pytest

pytest.importorskip("dask.array")
pytest.importorskip("sklearn")

pytestmark = pytest.mark.dask

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "larger-than-memory.md"


def test_code_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(code) >= 5
    names = {}
    exec(compile("\n".join(code), PAGE.name, "exec"), names)
    assert names["corner"].shape == (4, 4)
    assert names["accuracy"] > 0.8
    assert names["spread"].shape == (100, 2)
