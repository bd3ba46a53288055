"""Command line of the batteries; ``python -m bench.studies.randomness --help`` explains it."""

import argparse
import pathlib
import sys
import tempfile

from ... import environment
from . import report
from .batteries import BATTERIES
from .runs import ROOT, load, perform, save, weakened
from .sequences import ROUNDS, SEQUENCES

PAGE = ROOT / "docs" / "study" / "randomness.md"
# A p-value below this is below the limit, however many tests there are.
CERTAIN = 1e-12


def main(arguments=None) -> int:
    """Run the batteries that are missing from the results, and say what all of them say.

    Returns
    -------
    int
        0 if the stream passes everything and the weakened generator is caught, else 1.
    """
    options = _parser().parse_args(arguments)
    results = load(options.results)
    chosen = {name: BATTERIES[name]() for name in options.batteries}
    for name in [name for name, battery in chosen.items() if battery is None]:
        print(f"not installed: {name}")
        del chosen[name]
    with tempfile.TemporaryDirectory(prefix="fastdrop-weak-") as folder:
        package = None
        for rounds, sequence, name in _plan(options.sequences, chosen):
            if (rounds, sequence, name) in results or _caught(results, rounds, sequence):
                continue
            if rounds != ROUNDS and package is None:
                package = weakened(folder)
            run = perform(rounds, sequence, chosen[name], package if rounds != ROUNDS else None)
            results[run.key] = run
            save(options.results, run)
            print(_line(run), flush=True)
    runs = [run for run in results.values() if run.sequence in options.sequences]
    return _conclude(runs, options)


def _plan(sequences, batteries):
    """Return what is to be run: each battery on a sequence of both generators in turn."""
    return [
        (rounds, sequence, name)
        for sequence in sequences
        for name in batteries
        for rounds in (ROUNDS, report.WEAK_ROUNDS)
        if rounds == ROUNDS or sequence != "control"
    ]


def _caught(results, rounds, sequence):
    """Whether a battery has caught the weakened generator in a sequence: it needs no other then."""
    return rounds != ROUNDS and any(
        min(p for _, p in run.p_values) < CERTAIN
        for run in results.values()
        if (run.rounds, run.sequence) == (rounds, sequence)
    )


def _line(run):
    return (
        f"{run.rounds:2} rounds  {run.sequence:10}  {run.battery:13}  {len(run.p_values):3} tests  "
        f"{run.volume / 1e6:6.0f} MB  {run.seconds:4.0f} s  smallest tail: {run.extreme:.1e}"
    )


def _conclude(runs, options):
    if not runs:
        print("no results")
        return 1
    stream, weak, fine = report.conclusion(runs)
    print(f"\n{report.tables(runs, _machine())}\n")
    for failure in stream:
        print("the stream failed:", *failure)
    if not weak:
        print("the weakened generator was not caught")
    if options.write:
        PAGE.write_text(report.document(PAGE.read_text(), runs, _machine()))
    return 0 if fine else 1


def _machine():
    facts = environment.describe()
    return f"{facts['cpu']}, Python {facts['python']}, NumPy {facts['packages']['numpy']}"


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.randomness",
        description="Run outside batteries of statistical tests (dieharder; SmallCrush, Rabbit and "
        "BlockAlphabit of TestU01) on the mask stream in several orders, and on a generator "
        "weakened to three rounds, which they have to catch. On Debian: apt install dieharder "
        "libtestu01-0-dev (the latter from non-free).",
    )
    parser.add_argument("--sequences", nargs="+", choices=SEQUENCES, default=[*SEQUENCES])
    parser.add_argument("--batteries", nargs="+", choices=BATTERIES, default=[*BATTERIES])
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("build", "randomness.jsonl"),
        metavar="FILE",
        help="where finished runs are kept, and found again (default: build/randomness.jsonl)",
    )
    parser.add_argument("--write", action="store_true", help="write docs/study/randomness.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
