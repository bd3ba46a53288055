"""Does it do what dropout is for? ``python -m bench.studies.generalisation --help``.

Test error with and without dropout on real data, in parts that can be run one by one. A finished
run is kept in the store and never done twice: stop the study whenever you like, and start it again
with the same command. What is run, and how it is tuned, stands in `parts.Plan` and
`uncertainty.Protocol`.
"""

import argparse
import json
import pathlib
import sys

from ... import environment, marks
from . import guide, masks, parts, plots, report, timing, uncertainty
from .runner import Runner
from .store import Store

__all__ = ["PARTS", "main"]

PARTS = {
    "comparison": "part 1: no dropout and kinds of masks, tuned alike",
    "rivals": "part 1: torch and scikit-learn, and eight rows per mask",
    "shorter": "part 1: the same with fewer epochs, as all that follows",
    "timing": "part 1: seconds; with one worker, on a machine that does nothing else",
    "size": "part 2: test error against the number of training examples",
    "rate": "part 2: test error against the dropout rate",
    "depth": "part 3: the best rate at each depth",
    "wider": "part 3: the same in 300 epochs, and with layers of n / keep_prob units",
    "masks": "part 3: how many masks a batch needs",
    "uncertainty": "part 4: Monte Carlo dropout on UCI sets",
}
INTERRUPTED = 130


def main(arguments=None) -> int:
    """Run the parts asked for, print their tables, and put them into a folder's page.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line, ``sys.argv[1:]`` if not given.

    Returns
    -------
    int
        0; 1 if data is missing; 130 if the user stopped the study.
    """
    options = _parser().parse_args(arguments)
    plan = parts.Plan.quick() if options.quick else parts.Plan()
    protocol = uncertainty.Protocol.quick() if options.quick else uncertainty.Protocol()
    mask_plan = masks.MaskPlan.quick() if options.quick else masks.MaskPlan()
    try:
        chosen = _chosen(options)
        runner = Runner(Store(options.store), options.workers)
        for part in chosen:
            summary = {part: _run(part, runner, (plan, mask_plan, protocol), options.uci)}
            for name, table in report.tables(summary).items():
                print(f"\n{name}\n\n{table}", flush=True)
            if options.docs is not None:
                _document(options.docs, summary)
    except KeyboardInterrupt:
        print(f"\nstopped; finished runs are in {options.store}", file=sys.stderr)
        return INTERRUPTED
    except (FileNotFoundError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.docs is not None and not chosen:
        _document(options.docs, {})
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.generalisation",
        description=__doc__.split("\n\n", 1)[1],
        epilog="\n".join(f"{part:12} {text}" for part, text in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)}; without any, all that there is data for, or with --docs none",
    )
    parser.add_argument(
        "--store",
        type=pathlib.Path,
        default=pathlib.Path("study-runs.jsonl"),
        help="file with the finished runs (default: %(default)s)",
    )
    parser.add_argument(
        "--docs",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder whose study.md, study.json and plots are brought up to date",
    )
    parser.add_argument(
        "--uci",
        metavar="FOLDER",
        help=f"folder with {', '.join(f'{name}.npz' for name in uncertainty.SETS)}",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, of one thread each (default: 1)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few seconds, to see that everything works; the results mean nothing",
    )
    return parser


def _chosen(options):
    """The parts to run, after a look whether their data is there."""
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    chosen = options.parts
    if not chosen and options.docs is None:
        chosen = [part for part in PARTS if part != "uncertainty" or options.uci is not None]
    if "uncertainty" in chosen:
        if options.uci is None:
            raise FileNotFoundError(
                "part 4 needs the UCI sets: --uci FOLDER, with "
                f"{' and '.join(f'{name}.npz' for name in uncertainty.SETS)} in it"
            )
        for name in uncertainty.SETS:
            uncertainty.load_set(options.uci, name)
    return chosen


def _run(part, runner, plans, uci):
    plan, mask_plan, protocol = plans
    if part != "comparison":
        plan = plan.short()
    if part == "uncertainty":
        return uncertainty.part(runner, protocol, uci)
    if part == "masks":
        return masks.part(runner, mask_plan)
    if part == "timing":
        return timing.timing(runner, plan)
    return getattr(parts, part)(runner, plan)


def _document(folder, summary):
    """Add new results to a folder's summary, and make its tables and plots again."""
    path = folder / "study.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    facts = {part: environment.describe()["cpu"] for part in summary}
    known = known | summary
    known["machine"] = known.get("machine", {}) | facts
    path.write_text(json.dumps(known, separators=(",", ":")) + "\n")
    page = folder / "study.md"
    page.write_text(report.fill(page.read_text(), report.tables(known)))
    advice = folder.parent / "guide" / "choosing.md"
    if advice.exists():
        advice.write_text(marks.fill(advice.read_text(), guide.guide_tables(known), "guide"))
    plots.plot(known, folder)


if __name__ == "__main__":
    sys.exit(main())
