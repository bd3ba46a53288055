"""Command line of the benchmarks; ``python -m bench --help`` explains it."""

import argparse
import dataclasses
import math
import shlex
import sys
import time
import traceback

from . import environment, pages, report, roofline
from .cases import families, select
from .controls import Controls, available_cpus
from .harness import Settings, run_case
from .store import Store, has
from .verify import WrongResult

INTERRUPTED = 130
UNFINISHED = 3
# Words that stand in the place of a family: `python -m bench report`.
COMMANDS = {"report": pages.main, "roofline": roofline.main}


def main(arguments=None) -> int:
    """Run the chosen benchmarks and print a table for each.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line, ``sys.argv[1:]`` if not given.

    Returns
    -------
    int
        0, also where bars are missed; 1 if a contender failed or computed something wrong, or
        with ``--check`` if a bar was missed; 3 if cases were left for later by ``--stop-after``;
        130 if the user stopped the run.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        cases = select(families(), options.names, options.all)
    except ValueError as error:
        parser.error(str(error))
    if (options.append or options.resume) and not options.json:
        parser.error("--append and --resume need --json FILE, the file to add to")
    settings = Settings.quick() if options.quick else Settings()
    if options.seconds is not None:
        settings = dataclasses.replace(settings, seconds=options.seconds)
    if options.quick and not options.names:
        cases = [case for case in cases if not case.slow]
    if settings.largest is not None:
        cases = reduce(cases, settings.largest)
    if options.list:
        print(report.list_cases(cases))
        return 0

    facts = environment.describe()
    if options.isa is not None and options.isa not in facts["fastdrop"]["isa_available"]:
        available = ", ".join(facts["fastdrop"]["isa_available"])
        parser.error(f"argument --isa: this machine has {available}, got {options.isa!r}")
    print(*environment.lines(facts), sep="\n")
    for warning in environment.warnings(facts):
        print(f"warning: {warning}")
    print("time ratio: fastdrop's time divided by the contender's", flush=True)

    store = None
    if options.json:
        shown = ["FILE" if argument == options.json else argument for argument in arguments]
        run = environment.provenance(f"python -m bench {shlex.join(shown)}")
        try:
            append = options.append or options.resume
            store = Store(options.json, run, facts, settings, options.label, append)
        except ValueError as error:
            parser.error(str(error))
    began = time.monotonic()
    results, failures = [], []
    work = _work(cases, options, store)
    ended = _run(work, options, settings, results, failures, store)
    print()
    if ended == INTERRUPTED:
        print("interrupted; so far:")
    print(report.summary(results, failures))
    print(f"{len(results)} results in {time.monotonic() - began:.0f} s")
    if ended == UNFINISHED:
        left = len(work) - len(results) - len(failures)
        print(f"{left} are left: the same command with --resume goes on")
    if ended:
        return ended
    missed = any(one.met is False for result in results for one in result.judged())
    return 1 if failures or (options.check and missed) else 0


def reduce(cases, largest):
    """Return the cases with at most `largest` elements, each name once."""
    reduced = {}
    full = {case.name for case in cases}
    for case in cases:
        small = case.reduced(largest)
        if small is case or small.name not in full:
            reduced.setdefault(small.name, small)
    return list(reduced.values())


def _work(cases, options, store):
    """Return the cases to run, each with a number of threads; not those that a file has."""
    found = [(case, threads) for case in cases for threads in _threads_of(case, options)]
    if not options.resume:
        return found
    return [
        (case, threads) for case, threads in found if not has(store.document, case.name, threads)
    ]


def _run(work, options, settings, results, failures, store):
    """Run the cases, fill both lists and the store; return the exit status, 0 if all were run."""
    began = time.monotonic()
    try:
        with Controls(options.isa) as controls:
            for case, threads in work:
                late = time.monotonic() - began > options.stop_after
                if late and (results or failures):
                    return UNFINISHED
                result = _run_one(case, threads, settings, controls, failures)
                if result is None:
                    if store is not None:
                        store.fail(failures[-1])
                    continue
                results.append(result)
                if store is not None and not result.interrupted:
                    store.add(result)
                print(f"\n{report.table(result)}", flush=True)
                if result.interrupted:
                    return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _threads_of(case, options):
    """Return the numbers of threads at which to run a case."""
    usual = (1,) if options.quick else tuple(range(1, min(2, available_cpus()) + 1))
    chosen = options.threads or case.usual_threads or usual
    if case.threads is None:
        return chosen
    # A case that takes only some numbers is run with these, where the command line chose none.
    return [count for count in options.threads or case.threads if count in case.threads]


def _run_one(case, threads, settings, controls, failures):
    """Return the case's result; None if it failed, which is told at once and in the end."""
    try:
        return run_case(case, threads, settings, controls)
    except WrongResult as error:
        failures.append(f"WRONG RESULT, not timed: {error}")
    except Exception as error:
        traceback.print_exc()
        failures.append(f"{case.name}, {threads} threads: {type(error).__name__}: {error}")
    print(f"\n*** {failures[-1]}", file=sys.stderr, flush=True)
    return None


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time fastdrop and its rivals in turn, in one process, and print the ratios. "
        "Every result is verified before it is timed. `python -m bench report` makes the tables "
        "and pictures of the documentation from what lies in bench/results, `python -m bench "
        "roofline` compares the kernels with the machine's limits.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="a family, or a part of a case's name (default: the usual cases)",
    )
    parser.add_argument(
        "--all", action="store_true", help="also the cases that are run only when they are named"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer rounds, one thread, arrays of at most 2^20 elements, nothing that takes long",
    )
    parser.add_argument(
        "--seconds", type=_seconds, help="time for each contender (default: 0.5, --quick: 0.1)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to FILE, one by one")
    parser.add_argument(
        "--append", action="store_true", help="keep what FILE has of other cases, of this machine"
    )
    parser.add_argument(
        "--resume", action="store_true", help="the same, and leave out the cases that FILE has"
    )
    parser.add_argument(
        "--stop-after",
        type=_seconds,
        default=math.inf,
        metavar="SECONDS",
        help="begin no case later than that, but one; with cases left, exit with status 3",
    )
    parser.add_argument("--label", help="in FILE, how tables call this kind of machine")
    parser.add_argument(
        "--threads",
        type=_threads,
        metavar="N[,N]",
        help="numbers of threads, one after the other (default: those of the case, mostly 1,2)",
    )
    parser.add_argument("--isa", metavar="NAME", help="instruction set to force upon fastdrop")
    parser.add_argument("--list", action="store_true", help="only list the cases and their bars")
    parser.add_argument(
        "--check", action="store_true", help="exit with status 1 if a bar is missed"
    )
    return parser


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds


def _threads(text):
    try:
        counts = tuple(int(count) for count in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"expected counts such as 1,2, got {text!r}")
    return counts


if __name__ == "__main__":
    sys.exit(main())
