"""Make notebooks of pages, and put what their code prints and draws into the pages.

    python tools/notebook.py docs/tutorial/digits.md
    python tools/notebook.py docs/tutorial/digits.md --run

The first writes a Jupyter notebook beside the page: a cell for each Python block, and the text
between as Markdown. The second runs the notebook before that, which needs nbclient and ipykernel:
what a cell prints goes into the `text` block that follows the Python block, what it draws into a
file beside the page.
"""

import argparse
import base64
import json
import os
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<text>.*?)^```\n)?"
    r"(?:\n!\[(?P<alternative>[^\]]*)\]\((?P<image>[^)]+)\)\n)?",
    re.MULTILINE | re.DOTALL,
)


def cells(page):
    """Return a page's cells: ("markdown", text) and ("code", match of a block with its output)."""
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in CODE.finditer(text):
        found += [("markdown", text[end : match.start()].strip()), ("code", match)]
        end = match.end()
    found.append(("markdown", text[end:].strip()))
    return [cell for cell in found if cell[0] == "code" or cell[1]]


def notebook(page):
    """Return the notebook of a page, as a dict in the format 4.5."""
    made = []
    for number, (kind, content) in enumerate(cells(page)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"source": content["code"].rstrip(), "execution_count": None, "outputs": []}
        else:
            cell["source"] = content
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def as_text(page):
    """Return the file of a page's notebook."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def executed(page, folder):
    """Run the notebook of a page in a folder; return what nbformat makes of it."""
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.from_dict(notebook(page))
    resources = {"metadata": {"path": str(folder)}}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # this fastdrop, from there
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return NotebookClient(made, timeout=300, startup_timeout=300, resources=resources).execute(
        env=environment
    )


def printed(cell):
    """What a cell has printed; bars and warnings go to stderr and are left out."""
    texts = [one.text for one in cell.outputs if one.get("name") == "stdout"]
    texts += [one.data["text/plain"] for one in cell.outputs if one.output_type == "execute_result"]
    return "".join(texts)


def drawn(cell):
    """The pictures that a cell has drawn, as PNG."""
    data = [one.data for one in cell.outputs if one.output_type == "display_data"]
    return [base64.b64decode(one["image/png"]) for one in data if "image/png" in one]


def write(page, folder):
    """Bring the output in a page up to date."""
    results = iter([cell for cell in executed(page, folder).cells if cell.cell_type == "code"])
    pictures = 0
    pieces = []
    for kind, content in cells(page):
        if kind == "markdown":
            pieces.append(content + "\n")
            continue
        cell = next(results)
        piece = f"```python\n{content['code']}```\n"
        if printed(cell):
            piece += f"\n```text\n{printed(cell).rstrip()}\n```\n"
        for picture in drawn(cell):
            pictures += 1
            name = f"{page.stem}-{pictures}.png"
            (page.parent / name).write_bytes(picture)
            piece += f"\n![{content['alternative'] or 'What the code draws'}]({name})\n"
        pieces.append(piece)
    page.write_text("\n".join(pieces), encoding="utf-8")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--run", action="store_true", help="run it, and update the page")
    options = parser.parse_args()
    if options.run:
        with tempfile.TemporaryDirectory() as folder:
            write(options.page, folder)
    options.page.with_suffix(".ipynb").write_text(as_text(options.page), encoding="utf-8")


if __name__ == "__main__":
    main()
