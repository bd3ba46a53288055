"""Marked places of Markdown pages, filled with what a program writes.

``<!-- bench: NAME -->`` begins a place and ``<!-- end -->`` ends it; other programs have another
word in the place of ``bench``.
"""

import re

__all__ = ["fill", "markdown", "names"]


def _place(word):
    return re.compile(
        rf"(<!-- {word}: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end(?: of {word})? -->)", re.DOTALL
    )


def names(text, word="bench"):
    """Return the names of the places of a page, in their order."""
    return [match["name"] for match in _place(word).finditer(text)]


def fill(text, found, word="bench"):
    """Replace what stands in the marked places of a page.

    Parameters
    ----------
    text : str
    found : dict of str
        What is to stand there, by name; places of other names stay as they are.
    word : str
        The word that begins the marks.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a place that begins does not end, or if the page has no place for something.
    """
    places = names(text, word)
    if missing := sorted(set(found) - set(places)):
        raise ValueError(f"the page has no place for {', '.join(missing)}")
    begun = len(re.findall(rf"^<!-- {word}: ", text, re.MULTILINE))
    if begun != len(places):
        raise ValueError(f"a place that begins with '<!-- {word}: ' does not end")

    def replaced(match):
        name = match["name"]
        return match[0] if name not in found else f"{match[1]}\n{found[name]}\n\n{match[3]}"

    return _place(word).sub(replaced, text)


def markdown(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
