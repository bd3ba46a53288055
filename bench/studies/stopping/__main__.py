"""Do fits with dropout stop where they should?

Each run fits an estimator twice from the same seed: once as it stops by itself, once without ever
stopping. Weights, masks and order are the same, so the first is the beginning of the second, and
the score after every epoch of the second says what was given away, and how many epochs were needed.
All other parameters are the defaults, but for ``max_iter``; the data are used as they come.

The bar: in 95 % of the runs the score is at most 0.02 (regressors: R² 0.05) below that of the fit
that never stops, after at most three times the epochs that were needed. That is counted twice: up
to the epoch in which that fit first had such a score (reached), which may be luck, and up to the
one from which on it always had (settled), before which a stop may give more away.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy

__all__ = ["main", "report", "run"]

CLASSES = ("iris", "wine", "breast_cancer", "digits")
VALUES = ("diabetes", "concrete", "yacht")
UCI = ("concrete", "yacht")
RATES = (0.1, 0.3, 0.5)
MASKS = (1, 32, "batch")
TOLERANCES = dict.fromkeys(CLASSES, 0.02) | dict.fromkeys(VALUES, 0.05)
SHARE, TIMES = 0.95, 3
INTERRUPTED = 130


def load(name, folder):
    """Rows and targets of a data set; of digits the first 300 rows."""
    if name in UCI:
        with numpy.load(folder / f"{name}.npz") as stored:
            return stored["X"], stored["y"]
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (x[:300], y[:300]) if name == "digits" else (x, y)


def run(name, rate, masks, seed, *, folder, epochs, scaled):
    """Fit twice, and return what there is to say about it.

    Parameters
    ----------
    name : str
        Of the data set.
    rate : float
    masks : int or "batch"
        Rows per mask.
    seed : int
    folder : Path
        With concrete and yacht.
    epochs : int
        At most.
    scaled : bool
        Standardise the features.

    Returns
    -------
    dict
        The cell, the epochs done, those up to which a score as good as the last one was reached and
        from which on it stayed, and the scores of both fits on the whole data set.
    """
    import fastdrop

    x, y = load(name, folder)
    if scaled:
        spread = x.std(axis=0)
        x = (x - x.mean(axis=0)) / numpy.where(spread > 0, spread, 1)
    kind = fastdrop.MLPRegressor if name in VALUES else fastdrop.MLPClassifier
    options = {"dropout": rate, "rows_per_mask": masks, "max_iter": epochs, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that were not enough
        stops = kind(**options).fit(x, y)
        never = kind(**options, early_stopping=True, n_iter_no_change=numpy.inf)
        never.fit(x, y, X_val=x, y_val=y)
    scores = numpy.array(never.validation_scores_)
    if not numpy.isclose(stops.score(x, y), scores[stops.n_iter_ - 1]):
        raise AssertionError(f"{name}: the fit that stops is not the beginning of the other")
    enough = scores >= scores[-1] - TOLERANCES[name]
    reached, settled = epochs_needed(enough)
    return {
        "data": name, "rate": rate, "masks": masks, "seed": seed, "scaled": scaled,
        "epochs": stops.n_iter_, "most": epochs, "reached": reached, "settled": settled,
        "score": float(scores[stops.n_iter_ - 1]), "never": float(scores[-1]),
    }  # fmt: skip


def epochs_needed(enough):
    """The first epoch with a score that is good enough, and the first before only such epochs.

    Parameters
    ----------
    enough : numpy.ndarray of bool, shape (epochs,)
        The last is true.

    Returns
    -------
    reached, settled : int
        From 1.
    """
    reached = int(numpy.argmax(enough)) + 1
    return reached, len(enough) - int(numpy.argmin([*enough[::-1], False])) + 1


def report(runs):
    """Return a table of the runs by data set, rate and masks, and a line for all of them.

    Parameters
    ----------
    runs : list of dict
        As `run` returns them.

    Returns
    -------
    str
    """
    lines = [
        f"{'':14} {'runs':>5} {'not worse':>9} {'within':>7} {'epochs':>7} "
        f"{'/ reached':>9} {'up to 3':>8} {'/ settled':>9} {'up to 3':>8}"
    ]
    for what in ("data", "rate", "masks"):
        values = sorted({one[what] for one in runs}, key=str)
        lines += [
            _line(f"{value}", [one for one in runs if one[what] == value]) for value in values
        ]
    lines.append(_line("all", runs))
    return "\n".join(lines)


def _line(title, runs):
    def share(judge):
        return sum(map(judge, runs)) / len(runs)

    def lost(one):
        return one["never"] - one["score"]

    def allowed(one):
        return TOLERANCES[one["data"]] + 1e-12

    line = (
        f"{title:14} {len(runs):5} {share(lambda one: lost(one) <= allowed(one)):9.1%} "
        f"{share(lambda one: abs(lost(one)) <= allowed(one)):7.1%} "
        f"{statistics.median(one['epochs'] for one in runs):7.0f}"
    )
    for needed in ("reached", "settled"):
        ratios = [one["epochs"] / one[needed] for one in runs]
        quick = sum(ratio <= TIMES for ratio in ratios) / len(runs)
        line += f" {statistics.median(ratios):9.2f} {quick:8.1%}"
    return line


def main(arguments=None):
    """Run what is missing in the store, and print the table.

    Returns
    -------
    int
        0; with ``--check`` 1 if the bar is missed; 130 if the user stopped it.
    """
    options = _options(arguments)
    names = [*CLASSES, *VALUES]
    if options.quick:
        names = ["iris", "diabetes"]
    missing = [n for n in names if n in UCI and not (options.uci / f"{n}.npz").exists()]
    for name in missing:
        print(f"left out: {name}, no {options.uci / name}.npz; --uci says where it is")
        names.remove(name)
    masks = MASKS if not options.quick else (1, "batch")
    rates = options.rates if not options.quick else options.rates[:1]
    seeds = range(options.seeds if not options.quick else 1)
    epochs = options.epochs if not options.quick else min(options.epochs, 100)
    cells = [(n, r, m, s) for s, n, r, m in itertools.product(seeds, names, rates, masks)]
    done = _stored(options.store)

    def wanted(one):
        cell = (one["data"], one["rate"], one["masks"], one["seed"])
        return cell in cells and one["scaled"] == options.scaled and one["most"] == epochs

    runs = [one for one in done if wanted(one)]
    known = {(one["data"], one["rate"], one["masks"], one["seed"]) for one in runs}
    code, began = 0, time.monotonic()
    todo = [cell for cell in cells if cell not in known]
    try:
        for number, cell in enumerate(todo, 1):
            one = run(*cell, folder=options.uci, epochs=epochs, scaled=options.scaled)
            runs.append(one)
            if options.store:
                with options.store.open("a") as file:
                    file.write(json.dumps(one) + "\n")
            left = (time.monotonic() - began) / number * (len(todo) - number)
            print(f"{number}/{len(todo)}, {left / 60:.0f} min left: {one}", file=sys.stderr)
    except KeyboardInterrupt:
        code = INTERRUPTED
        print(f"interrupted, {len(runs)} of {len(cells)} runs:")
    if runs:
        print(report(runs))
    if options.check and not code:
        allowed = [one["never"] - one["score"] <= TOLERANCES[one["data"]] for one in runs]
        code = int(sum(allowed) < SHARE * len(runs))
    return code


def _stored(path):
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.stopping", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=10, help="default: 10")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--epochs", type=int, default=2000, help="at most; default: 2000")
    parser.add_argument("--scaled", action="store_true", help="standardise the features")
    parser.add_argument("--quick", action="store_true", help="two data sets, a seed, 100 epochs")
    parser.add_argument(
        "--uci",
        type=Path,
        default=Path("uci"),
        metavar="FOLDER",
        help="with concrete.npz, yacht.npz",
    )
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="keep the runs, and go on where it stopped"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if the bar is missed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
