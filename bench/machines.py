"""The results of one kind of machine, and the cells of tables that are made of them."""

# ruff: noqa: RUF001

import dataclasses

from .marks import markdown
from .report import amount

__all__ = ["NONE", "Machine", "grid", "listed", "ratio_of", "time_of", "times"]

NONE = "–"


@dataclasses.dataclass(frozen=True)
class Machine:
    """The results of one kind of machine.

    Parameters
    ----------
    label : str
        How tables call it.
    document : dict
        What `store.load` returns.
    """

    label: str
    document: dict

    def result(self, name, threads=1):
        """Return the result of a case, None if there is none."""
        for one in self.document["results"]:
            if one["name"] == name and one["threads"] == threads:
                return one
        return None

    def contender(self, name, threads, who):
        """Return what was measured of a contender, None if it was not."""
        result = self.result(name, threads)
        found = [one for one in result["contenders"] if one["name"] == who] if result else []
        return found[0] if found else None

    def faster(self, name, rivals, threads=1, own="fastdrop"):
        """Return how many times faster than the fastest of some rivals: lower, median, upper."""
        rivals = (rivals,) if isinstance(rivals, str) else rivals
        found = [one for one in (self.contender(name, threads, who) for who in rivals) if one]
        found = [one for one in found if own in one["ratio"]]
        if not found:
            return None
        lower, median, upper, _ = min(found, key=lambda one: one["median"])["ratio"][own]
        return 1 / upper, 1 / median, 1 / lower


def times(ratio):
    """Return how many times faster, with its interval, as text."""
    if ratio is None:
        return NONE
    lower, median, upper = (f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in ratio)
    return median if lower == upper else f"{median} ({lower} to {upper})"


def ratio_of(name, rivals, threads=1, own="fastdrop"):
    """Return a function of a machine that says how many times faster fastdrop is."""
    return lambda machine: times(machine.faster(name, rivals, threads, own))


def time_of(name, threads=1, who="fastdrop"):
    """Return a function of a machine that says how long a contender takes."""

    def cell(machine):
        found = machine.contender(name, threads, who)
        return NONE if found is None else amount(found["median"], "seconds")

    return cell


def listed(machines, header, rows):
    """Return a Markdown table whose last column names the machine, if there are several."""
    if len(machines) == 1:
        header, rows = header[:-1], [row[:-1] for row in rows]
    return markdown(header, rows)


def grid(machines, header, rows):
    """Return a table of (label, *cells), each cell a function of a machine."""
    several = len(machines) > 1
    made = []
    for label, *cells in rows:
        for machine in machines:
            who = [machine.label] if several else []
            made.append([label, *who, *(cell(machine) for cell in cells)])
    return markdown([header[0], *(["machine"] if several else []), *header[1:]], made)
