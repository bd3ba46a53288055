"""The results of runs on one machine, in a JSON file that later runs may add to.

The file has the machine, a list of runs (when, from which commit, by which command, with which
versions) and a list of results, each with the number of its run. Times are seconds, rounded to four
digits; what the rounds measured one by one is not kept. A contender's ``ratio`` has, for each of
fastdrop's contenders, of fastdrop's time divided by its own: the lower end of the interval, the
median, the upper end, and the confidence.
"""

import json
import os
import pathlib

from . import report

__all__ = ["FORMAT", "Store", "add_roofline", "has", "load"]

FORMAT = 1


def load(path) -> dict:
    """Return the document in a file.

    Raises
    ------
    ValueError
        If the file is no such document.
    """
    try:
        document = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of benchmark results in format {FORMAT}")
    return document


def has(document, name, threads) -> bool:
    """Whether a document has the result of a case at a number of threads."""
    return any(one["name"] == name and one["threads"] == threads for one in document["results"])


class Store:
    """A file of results, written anew after each.

    Parameters
    ----------
    path : str or pathlib.Path
    run : dict
        What `environment.provenance` says of this run.
    facts : dict
        What `environment.describe` says of it.
    settings : harness.Settings
    label : str, optional
        How tables call this kind of machine; the name of its processor if not given.
    append : bool
        Whether to keep the results that the file has of other cases; they have to be of the same
        processor.

    Raises
    ------
    ValueError
        If the file to append to is of another processor, or no file of results.
    """

    def __init__(self, path, run, facts, settings, label=None, append=False):
        self.path = pathlib.Path(path)
        machine = {"cpu": facts["cpu"], "cpus": facts["cpus"]}
        named = {"label": label or facts["cpu"]} | machine
        self.document = {"format": FORMAT, "machine": named, "runs": [], "results": []}
        if append and self.path.exists():
            self.document = _of_this_machine(self.path, machine)
            self.document["machine"]["label"] = label or self.document["machine"]["label"]
        effort = {"rounds": settings.rounds, "seconds": settings.seconds}
        self._run = run | {"settings": effort, "environment": facts, "failures": []}
        self.document["runs"].append(self._run)

    def add(self, result):
        """Put a `harness.Result` in the place of an earlier one of its case and threads, if any."""
        made = _as_dict(result)
        kept = [
            one
            for one in self.document["results"]
            if (one["name"], one["threads"]) != (made["name"], made["threads"])
        ]
        made["run"] = len(self.document["runs"]) - 1
        self.document["results"] = [*kept, made]
        self.write()

    def fail(self, text):
        """Keep the description of a case that failed."""
        self._run["failures"].append(text)
        self.write()

    def write(self):
        """Write the file, all of it or nothing."""
        _write(self.path, _without_unused_runs(self.document))


def add_roofline(path, run, facts):
    """Put the rows of a roofline into a file of results, in the place of those of its threads.

    Raises
    ------
    ValueError
        If the file is of another processor, or no file of results.
    """
    document = _of_this_machine(path, {"cpu": facts["cpu"], "cpus": facts["cpus"]})
    others = [one for one in document.get("roofline", []) if one["threads"] != run["threads"]]
    rows = [
        {key: value if isinstance(value, str) else _rounded(value) for key, value in row.items()}
        for row in run["rows"]
    ]
    made = [*others, run | {"rows": rows}]
    document["roofline"] = sorted(made, key=lambda one: one["threads"])
    _write(pathlib.Path(path), document)


def _of_this_machine(path, machine):
    document = load(path)
    found = document["machine"]
    if {key: found[key] for key in machine} != machine:
        raise ValueError(f"{path} is of {_named(found)}, this is {_named(machine)}")
    return document


def _write(path, document):
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    os.replace(part, path)


def _named(machine):
    return f"{machine['cpu']} with {machine['cpus']} usable processors"


def _without_unused_runs(document):
    """Return the document without runs of which no result is left; the last one stays."""
    used = {one["run"] for one in document["results"]} | {len(document["runs"]) - 1}
    numbers = {old: new for new, old in enumerate(sorted(used))}
    runs = [document["runs"][old] for old in sorted(used)]
    results = [one | {"run": numbers[one["run"]]} for one in document["results"]]
    return document | {"runs": runs, "results": results}


def _as_dict(result):
    return {
        "name": result.case.name,
        "family": result.case.family,
        "work": result.case.work,
        "size": result.case.size,
        "threads": result.threads,
        "unit": result.case.unit,
        "rounds": result.rounds,
        "interrupted": result.interrupted,
        "disturbed": result.disturbed,
        "contenders": [_contender(result, name) for name in result.samples],
        "bars": [
            {
                "contender": one.bar.contender,
                "bar": report.bar_text(one.bar, result.case.unit),
                "rival": one.rival,
                "measured": None if one.measured is None else _rounded(one.measured),
                "met": one.met,
                "reason": one.reason,
            }
            for one in result.judged()
        ],
        "skipped": [vars(one) for one in result.skipped],
    }


def _contender(result, name):
    contender, spread = result.contenders[name], result.spread(name)
    ratio = {
        other: [_rounded(value) for value in vars(result.interval(other, name)).values()]
        for other in result.samples
        if other != name and other.startswith("fastdrop")
    }
    return {
        "name": name,
        "calls": contender.calls,
        "note": contender.note,
        "isa": result.isa[name],
        **{key: _rounded(value) for key, value in vars(spread).items()},
        "ratio": ratio,
    }


def _rounded(value):
    """Return a number with four significant digits."""
    return float(f"{value:.4g}")
