"""The tutorial's notebooks run, print what the pages show, and draw pictures and a bar."""

import re
from pathlib import Path

import pytest

from tools import notebook

PAGES = sorted((Path(__file__).resolve().parents[1] / "tutorial").glob("*.md"))


def without_numbers(text):
    """A text with its numbers taken away: the last digits depend on the processor."""
    return re.sub(r"\d+(\.\d+)?", "#", text).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_notebook_runs(page, tmp_path):
    done = [cell for cell in notebook.executed(page, tmp_path).cells if cell.cell_type == "code"]
    shown = [content for kind, content in notebook.cells(page) if kind == "code"]
    for cell, block in zip(done, shown, strict=True):
        assert without_numbers(notebook.printed(cell)) == without_numbers(block["text"] or "")
        assert len(notebook.drawn(cell)) == (block["image"] is not None)
    assert any(notebook.drawn(cell) for cell in done)
    bars = [one.text for cell in done for one in cell.outputs if one.get("name") == "stderr"]
    assert page.stem != "digits" or any("60/60" in bar for bar in bars)
