"""Run the examples and write what they print into docs/examples/index.md.

    python tools/examples.py [NAME...]

A script whose packages are missing here is left out, and said: what the page shows of it stays.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "examples" / "index.md"
SECTION = re.compile(
    r"(?P<head>^\[examples/(?P<name>\w+)\.py\].*?^```text\n)(?P<output>.*?)(?P<end>^```$)",
    re.MULTILINE | re.DOTALL,
)


def sections():
    """Return what the page shows of each example, by name."""
    return {match["name"]: match["output"] for match in SECTION.finditer(PAGE.read_text())}


def run(name):
    """Return what an example prints, or None if a package is missing."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
        print(f"{name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
        return None
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return done.stdout


def main(names):
    """Bring the page up to date."""

    def updated(match):
        output = run(match["name"]) if not names or match["name"] in names else None
        return match[0] if output is None else match["head"] + output + match["end"]

    PAGE.write_text(SECTION.sub(updated, PAGE.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
