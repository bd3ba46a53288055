"""What the runs say, as Markdown: the tables of docs/study/randomness.md."""

import datetime

from .runs import ERROR, Verdict
from .sequences import ROUNDS, SEQUENCES

__all__ = ["MARKER", "WEAK_ROUNDS", "conclusion", "document", "judge", "p_value_page", "tables"]

MARKER = "<!-- Below: written by python -m bench.studies.randomness -->"
WEAK_ROUNDS = 3
ORDERS = [name for name in SEQUENCES if name != "control"]


def judge(runs):
    """Return the verdict over all tests of the mask stream among the runs."""
    stream = [run for run in runs if run.rounds == ROUNDS and run.sequence != "control"]
    return Verdict(sum(len(run.p_values) for run in stream))


def conclusion(runs):
    """Return failures of the stream, failures of the weakened generator, and whether all is well.

    All is well where the stream passes every test and the weakened generator fails some.
    """
    verdict = judge(runs)
    failed = {
        rounds: [
            (run.sequence, run.battery, name, p)
            for run in runs
            if run.rounds == rounds and run.sequence != "control"
            for name, p in verdict.failures(run)
        ]
        for rounds in (ROUNDS, WEAK_ROUNDS)
    }
    fine = not failed[ROUNDS] and bool(failed[WEAK_ROUNDS])
    return failed[ROUNDS], failed[WEAK_ROUNDS], fine


def table(head, rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def batteries_of(runs):
    """Return the names of the batteries among the runs, in order."""
    return list(dict.fromkeys(run.battery for run in runs))


def span(counts):
    """Return the smallest and the largest of some numbers as text."""
    counts = sorted(counts)
    return f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else str(counts[0])


def volumes(runs):
    """Return the table of how much each battery read and computed."""
    rows = []
    for battery in batteries_of(runs):
        own = [run for run in runs if run.battery == battery and run.sequence in ORDERS]
        tests = span(len(run.p_values) for run in own)
        read = span(round(run.volume / 1e6) for run in own)
        rows.append((battery, tests, f"{read} MB", f"{sum(run.seconds for run in own):.0f} s"))
    head = ("battery", "p-values per sequence", "read per sequence", "processor time in all")
    return table(head, rows)


def verdicts(runs):
    """Return the table of failures by sequence, of the stream and of the weakened generator."""
    verdict = judge(runs)
    rows = []
    for sequence in [name for name in SEQUENCES if any(run.sequence == name for run in runs)]:
        row = [sequence]
        for rounds in (ROUNDS, WEAK_ROUNDS):
            own = [run for run in runs if (run.rounds, run.sequence) == (rounds, sequence)]
            if not own:
                row += [""] * (3 if rounds == ROUNDS else 2)
                continue
            failed = sum(len(verdict.failures(run)) for run in own)
            count = sum(len(run.p_values) for run in own)
            smallest = min(run.extreme for run in own)
            by = [run.battery for run in own if verdict.failures(run)]
            row += [f"{failed} of {count}"]
            if rounds == ROUNDS:
                row += [", ".join(run.battery for run in own), f"{smallest:.1e}"]
            else:
                row += [", ".join(by) or "none"]
        rows.append(row)
    head = ["sequence", "stream: failed", "tests of", "smallest tail"]
    return table(head + ["3 rounds: failed", "caught by"], rows)


def tables(runs, machine):
    """Return both tables with what they were made on.

    Parameters
    ----------
    runs : list of Run
    machine : str
        Processor and versions.
    """
    verdict = judge(runs)
    return "\n\n".join(
        [
            f"Run on {datetime.date.today()} with `python -m bench.studies.randomness` "
            f"on {machine}.",
            volumes(runs),
            f"{verdict.tests} p-values of the stream. The tail of a p-value is its distance from 0 "
            f"or from 1, whichever is smaller; of dieharder's, from 0. A tail below "
            f"{verdict.limit:.1e} fails: a perfect source has any such with probability at most "
            f"{ERROR:g}.",
            verdicts(runs),
        ]
    )


def p_value_page(runs):
    """Return a table of every p-value of the stream: a row for each test, sequences as columns."""
    sequences = [name for name in SEQUENCES if any(run.sequence == name for run in runs)]
    columns = {}
    for run in runs:
        if run.rounds == ROUNDS:
            for number, (name, p) in enumerate(run.p_values):
                # Some batteries have several tests of one name: they differ by their order.
                row = columns.setdefault((run.battery, number, name), {})
                row[run.sequence] = f"{p:.4f}" if 1e-4 <= p <= 1 - 1e-4 else f"{p:.10g}"
    rows = [
        (battery, name, *(cells.get(sequence, "") for sequence in sequences))
        for (battery, _, name), cells in sorted(columns.items(), key=lambda item: item[0][:2])
    ]
    return table(("battery", "test", *sequences), rows)


def document(text, runs, machine):
    """Return a page's text with everything below the marker replaced."""
    head, marker, _ = text.partition(MARKER)
    if not marker:
        raise ValueError(f"the page has no line {MARKER!r}")
    body = ["## Results", tables(runs, machine), "## Every p-value of the stream"]
    return "\n\n".join([head + marker, *body, p_value_page(runs)]) + "\n"
