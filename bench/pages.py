"""Fill the documentation with what was measured: ``python -m bench report``.

It reads the files in ``bench/results``, one for each kind of machine, and writes the marked places
of the README and of ``docs``, and the pictures of ``docs/benchmarks``. With ``--check`` it only
says what would change.
"""

import argparse
import pathlib

from . import marks, pictures, store
from .machines import Machine
from .tables import block

__all__ = ["RESULTS", "ROOT", "machines", "main", "stale", "write"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def machines(folder=RESULTS):
    """Return the machines whose results lie in a folder, ordered by their files' names."""
    found = []
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        document = store.load(path)
        found.append(Machine(document["machine"].get("label") or path.stem, document))
    return found


def _pages(root):
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in paths if "_build" not in path.parts and path.exists()]


def _filled(text, found):
    names = marks.names(text)
    return marks.fill(text, {name: block(name, found) for name in names})


def stale(root=ROOT, found=None):
    """Return the pages and pictures that differ from what was measured.

    A picture is not drawn for that: it carries a digest of the numbers that it was drawn from.

    Parameters
    ----------
    root : pathlib.Path
    found : list of Machine, optional
        Those in ``bench/results`` if not given.

    Returns
    -------
    list of pathlib.Path
    """
    found = machines() if found is None else found
    pages = [path for path in _pages(root) if _filled(path.read_text(), found) != path.read_text()]
    return pages + pictures.stale(root / "docs" / "benchmarks", found)


def write(root=ROOT, found=None):
    """Write what `stale` returns, and return it."""
    found = machines() if found is None else found
    changed = stale(root, found)
    for path in changed:
        if path.suffix == ".md":
            path.write_text(_filled(path.read_text(), found))
        else:
            pictures.draw(path, found)
    return changed


def main(arguments=None) -> int:
    """Write the pages and pictures, or with ``--check`` name those that differ."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if needed")
    options = parser.parse_args(arguments)
    try:
        changed = stale() if options.check else write()
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(f"{'differs' if options.check else 'written'}: {path.relative_to(ROOT)}")
    if not changed:
        print("all pages and pictures show what was measured")
    return 1 if options.check and changed else 0
