"""Figures of speed in the pages are generated, or say how to measure them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *(page for folder in ("guide", "design", "tutorial") for page in (DOCS / folder).glob("*.md")),
]
GENERATED = re.compile(r"^<!-- (\w+): [\w.-]+ -->$.*?^<!-- end(?: of \1)? -->$", re.M | re.S)
CODE = re.compile(r"^```.*?^```$", re.M | re.S)
NUMBER = r"(?:\d[\d.]*|two|three|four|five|six|eight|ten)"
RATIO = re.compile(
    rf"\b{NUMBER}\s+(?:times|%)\s+(?:as\s+(?:fast|long)|faster|slower|sooner|the\s+time)"
    rf"|\btook\s+\d|\bfaster\s+by\s+\d|\bby\s+\d+\s+to\s+\d+\s+%"
)
SOURCE = re.compile(r"python -m bench|benchmarks/|study/")


def typed_figures(text):
    """The paragraphs with a ratio of times that nobody can check."""
    text = CODE.sub("", GENERATED.sub("", text))
    return [part for part in text.split("\n\n") if RATIO.search(part) and not SOURCE.search(part)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_figure_of_speed_is_typed(page):
    assert typed_figures(page.read_text()) == []


def test_typed_figures_are_seen():
    typed = "It is 1.5 times faster.\n\nIt is two to four times\nas fast.\n\nA step took 3 ms."
    generated = "<!-- bench: steps -->\n\n| 2 times faster |\n\n<!-- end -->"
    measured = "4 times as fast as a copy (`python -m bench dropout`)."
    assert typed_figures(f"{typed}\n\n{generated}\n\n{measured}") == typed.split("\n\n")
