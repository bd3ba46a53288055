"""What a release repeats: the version, and what the sdist has to contain."""

import re
import tomllib
from pathlib import Path

import fastdrop

ROOT = Path(__file__).resolve().parents[2]


def test_citation_has_the_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == fastdrop.__version__


def test_classifiers_begin_with_the_oldest_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        tuple(map(int, found[1].split(".")))
        for found in map(re.compile(r".*Python :: (3\.\d+)$").match, project["classifiers"])
        if found
    ]
    assert f">={named[0][0]}.{named[0][1]}" == project["requires-python"]
    assert named == sorted(named)
    # the stable ABI that setup.py builds for
    assert f"OLDEST_PYTHON = {named[0]}" in (ROOT / "setup.py").read_text()


def test_every_script_of_ci_is_in_the_sdist():
    manifest = (ROOT / "MANIFEST.in").read_text()
    named = {word for line in manifest.splitlines() for word in line.split()[1:]}
    scripts = {f".ci/{path.name}" for path in (ROOT / ".ci").iterdir()}
    assert "graft .ci" in manifest or scripts <= named
