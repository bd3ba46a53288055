"""Compare two builds of fastdrop: how long the second one takes, the first one's time being 1.

    python -m pip install --no-deps --target DIR WHEEL
    python tools/compare_builds.py . DIR [--threads N] [--seconds S] [NAME...]

Both are folders that hold the package `fastdrop`, as a checkout or what pip installed there. They
are imported into one process, and the first contender of each case of `bench` that is named is
called of both in turn, so that a machine that gets slower slows both. Names are those of
`python -m bench --list --all`; without any, the cases of dropout, masks, products and updates.
"""

import argparse
import contextlib
import gc
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ["dropout", "mask", "matmul", "update"]
SHORTEST = 4e-4  # seconds that one timing takes at least
FEWEST = 5


def cases_of(folder, names):
    """The chosen cases of `bench`, and the package of that folder, which they call."""
    for name in [name for name in sys.modules if name.split(".")[0] in {"bench", "fastdrop"}]:
        del sys.modules[name]
    sys.path[:2] = [str(folder), str(ROOT)]
    import fastdrop
    from bench import cases

    if Path(fastdrop.__path__[0]).parent != folder:
        sys.exit(f"there is no package fastdrop in {folder}")
    return fastdrop, cases.select(cases.families(), names, everything=True)


def first_call(case):
    """The call that a case is about."""
    return next(made.run for made in case.build(case.size) if made.name.startswith("fastdrop"))


def seconds(run, repetitions):
    """Seconds per call."""
    begin = time.perf_counter()
    for _ in range(repetitions):
        run()
    return (time.perf_counter() - begin) / repetitions


def compare(first, second, budget):
    """Median of the first one's seconds, and of the ratios of the second one's to them."""
    trial = max(seconds(first, 2), seconds(second, 2))
    repetitions = max(1, round(SHORTEST / trial))
    pairs = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(pairs) < FEWEST:
        order = (first, second) if len(pairs) % 2 else (second, first)
        taken = {}
        for run in order:
            run()  # its data back into the caches
            taken[run] = seconds(run, repetitions)
        pairs.append((taken[first], taken[second]))
    ratios = [other / one for one, other in pairs]
    return statistics.median(one for one, _ in pairs), statistics.median(ratios)


def summary(ratios):
    """One line for each family."""
    for family in sorted({name.split("/")[0] for name in ratios}):
        found = sorted(value for name, value in ratios.items() if name.startswith(f"{family}/"))
        above = sum(value > 1.05 for value in found)
        yield (
            f"{family}: {statistics.median(found):.2f} in the middle of {len(found)} "
            f"({found[0]:.2f} to {found[-1]:.2f}), {above} above 1.05"
        )


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("first", type=Path, metavar="FOLDER")
    parser.add_argument("second", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME", default=FAMILIES)
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.25, help="for each case")
    options = parser.parse_args(arguments)
    from threadpoolctl import threadpool_limits  # of the extra `bench`

    threadpool_limits(options.threads)
    chosen = []
    for folder in (options.first, options.second):
        package, cases = cases_of(folder.resolve(), options.names)
        package.set_num_threads(options.threads)
        chosen.append(cases)
    ratios = {}
    with contextlib.suppress(KeyboardInterrupt):
        for pair in zip(*chosen, strict=True):
            name = pair[0].name
            if pair[0].unit == "bytes" or options.threads not in (
                pair[0].threads or [options.threads]
            ):
                continue
            gc.collect()
            took, ratios[name] = compare(*map(first_call, pair), options.seconds)
            print(f"{name:50} {1e6 * took:12.1f} us  {ratios[name]:.3f}", flush=True)
    print(*summary(ratios), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
