"""Markdown tables from the study's summary, and their places in a page."""

import numpy

from ... import marks
from ...marks import markdown
from .statistics import interval, paired_ratio, standard_error
from .uncertainty import PUBLISHED

__all__ = ["TABLES", "fill", "tables"]

# Ratio of the mean test error to that without dropout: what was expected before the study, and what
# the literature has on full MNIST, against a tuned network without dropout: 1.60 % beside 1.06 to
# 1.35 % (Srivastava et al. 2014, table 2).
RATIOS = {
    "per-sample": (0.65, "0.66 to 0.84"),
    "32 rows": (0.65, ""),
    "batchwise": (0.70, ""),
}
POINTS_APART = 0.3
SOONER = 2.5


def tables(summary):
    """Return the tables that the summary has the data for, by name.

    Parameters
    ----------
    summary : dict
        What the parts returned, by the part's name.

    Returns
    -------
    dict of str
    """
    return {name: make(summary) for name, (part, make) in TABLES.items() if part in summary}


def fill(text, found):
    """Replace what stands between ``<!-- study: NAME -->`` and ``<!-- end of study -->``.

    Parameters and errors are those of `marks.fill`.
    """
    return marks.fill(text, found, "study")


def _expected(summary):
    arms = summary["comparison"]["arms"]
    errors = {arm: runs["error"] for arm, runs in arms.items()}
    rows = []
    for arm, (expected, published) in RATIOS.items():
        ratio, half = paired_ratio(errors[arm], errors["none"])
        rows.append(
            [
                f"test error, {arm} ÷ none",
                f"≤ {expected:.2f}",
                published,
                f"{ratio:.2f} ± {half:.2f}",
            ]
        )
    apart = numpy.subtract(errors["32 rows"], errors["per-sample"])
    mean, half = interval(apart)
    rows.append(
        [
            "test error, 32 rows less per-sample, points",
            f"within {POINTS_APART}",
            "",
            f"{mean:+.2f} ± {half:.2f}",
        ]
    )
    header = ["what", "expected beforehand", "published", "measured (95 % interval over seeds)"]
    return markdown(header, rows)


def _met(reached):
    return "yes" if reached else "**no**"


def _short(summary, key):
    """By arm, what the comparison with fewer epochs and the rivals have."""
    return summary["shorter"][key] | summary.get("rivals", {}).get(key, {})


def _comparison(summary):
    return _arms(summary["comparison"]["arms"], summary["comparison"]["tuning"])


def _shorter(summary):
    return _arms(_short(summary, "arms"), _short(summary, "tuning"))


def _arms(arms, tuning):
    rows = []
    for arm, runs in arms.items():
        error, half = interval(runs["error"])
        training = float(numpy.mean(runs["training_error"]))
        ratio = "1" if arm == "none" else _ratio(runs, arms["none"])
        rows.append(
            [
                arm,
                runs["learning_rate"],
                "none" if runs["max_norm"] is None else f"{runs['max_norm']:g}",
                len(runs["seeds"]),
                f"{error:.2f} ± {half:.2f}",
                f"{training:.2f}",
                f"{error - training:.2f}",
                ratio,
                tuning[arm]["best_epoch"] if arm in tuning else "",
            ]
        )
    header = ["arm", "learning rate", "max-norm", "seeds", "test error, %", "training error, %"]
    header += ["gap, points", "÷ none", "best epoch in validation"]
    return markdown(header, rows)


def _ratio(runs, baseline):
    """Ratio of the mean errors of the seeds that both have."""
    common = [seed for seed in runs["seeds"] if seed in baseline["seeds"]]
    values, others = (
        [each["error"][each["seeds"].index(seed)] for seed in common] for each in (runs, baseline)
    )
    ratio, half = paired_ratio(values, others)
    return f"{ratio:.2f} ± {half:.2f}" if len(common) > 1 else f"{ratio:.2f}"


def _tuning(summary):
    return _trials(summary["comparison"]["tuning"])


def _shorter_tuning(summary):
    return _trials(_short(summary, "tuning"))


def _trials(found):
    first = next(iter(found.values()))["trials"]
    rates = list(dict.fromkeys(trial["learning_rate"] for trial in first))
    bounds = [trial["max_norm"] for trial in first[len(rates) :]]
    rows = []
    for arm, tuned in found.items():
        errors = [f"{trial['error']:.2f}" for trial in tuned["trials"]]
        errors += [""] * (len(rates) + len(bounds) - len(errors))
        rows.append([arm, *errors, ", ".join(tuned["edges"]) or "no"])
    header = ["arm", *(f"{rate:g}" for rate in rates)]
    header += [f"max-norm {bound:g}" for bound in bounds] + ["best on an edge"]
    return markdown(header, rows)


def _timing(summary):
    found = summary["timing"]
    seconds = found["epoch_seconds"]
    tuning = summary.get("shorter", {}).get("tuning", {})
    rows = []
    for arm, value in seconds.items():
        best = tuning.get(arm, {}).get("best_epoch")
        rows.append(
            [
                arm,
                f"{value:.3f}",
                f"{value / seconds['none']:.2f}",
                f"{value / seconds['torch per-sample']:.2f}",
                "" if best is None else f"{best * value:.1f}",
            ]
        )
    header = ["arm", "seconds per epoch", "÷ none", "÷ torch per-sample"]
    return markdown([*header, "seconds to its best validation score"], rows)


def _races(summary):
    races = summary["timing"]["races"]
    names = list(races[0]["racers"])
    rows = []
    for one in races:
        rows.append(
            [
                one["seed"],
                f"{one['target']:.2f}",
                *(_arrival(one["racers"][name]) for name in names),
            ]
        )
    means = {name: _mean_arrival(races, name) for name in names}
    torch = means["torch per-sample"]
    rows.append(["mean", "", *("" if one is None else f"{one:.1f} s" for one in means.values())])
    sooner = {name: torch / one for name, one in means.items() if torch and one}
    rows.append(
        [
            "sooner than torch",
            "",
            *(f"{sooner[name]:.2f} times" if name in sooner else "" for name in names),
        ]
    )
    best = max((sooner.get(name, 0) for name in ("32 rows", "batchwise")), default=0)
    table = markdown(["seed", "target, %", *names], rows)
    return (
        f"{table}\n\nThe sooner of 32 rows and batchwise: {best:.2f} times sooner than torch with "
        f"dropout (bar: ≥ {SOONER}; met: {_met(best >= SOONER)})."
    )


def _mean_arrival(races, name):
    """Mean seconds, None if the target was not reached in every race."""
    seconds = [one["racers"][name]["seconds"] for one in races]
    return None if None in seconds else float(numpy.mean(seconds))


def _arrival(racer):
    if racer["seconds"] is None:
        return f"not reached, {racer['error']:.2f} %"
    return f"{racer['seconds']:.1f} s, {racer['epochs']} epochs"


def _sizes(summary):
    found = summary["size"]
    sizes = list(next(iter(found.values())))
    rows = [[arm, *(_mean(runs[size]["error"]) for size in sizes)] for arm, runs in found.items()]
    rows.append(
        [
            "ratio",
            *(_ratio(found["32 rows"][size], found["none"][size]) for size in sizes),
        ]
    )
    return markdown(["test error, %, from", *sizes], rows)


def _rates(summary):
    found = summary["rate"]
    rows = [
        ["learning rate", *(f"{runs['learning_rate']:g}" for runs in found.values())],
        ["test error, %", *(_mean(runs["error"]) for runs in found.values())],
        ["training error, %", *(_mean(runs["training_error"]) for runs in found.values())],
    ]
    return markdown(["hidden rate", *found], rows)


def _mean(values):
    """Mean and, of more than one value, its standard error."""
    error = f" ± {standard_error(values):.2f}" if len(values) > 1 else ""
    return f"{numpy.mean(values):.2f}{error}"


def _depths(summary):
    return _by_depth(summary["depth"], lambda cell: f"rate {cell['rate']:g}")


def _wider(summary):
    return _by_depth(summary["wider"], lambda cell: f"rate {cell['rate']:g}, {cell['units']} units")


def _masks(summary):
    cells = summary["masks"]
    rates = list(dict.fromkeys(cell["learning_rate"] for cell in cells))
    rows = []
    for key in dict.fromkeys((cell["set"], cell["batch"], cell["masks"]) for cell in cells):
        row = [cell for cell in cells if (cell["set"], cell["batch"], cell["masks"]) == key]
        rows.append([*key, row[0]["rows_per_mask"], *(_mean(cell["error"]) for cell in row)])
    header = ["digits", "batch", "masks in a batch", "rows per mask"]
    return markdown([*header, *(f"learning rate {rate:g}" for rate in rates)], rows)


def _by_depth(cells, title):
    """A line for each depth and a column for each title; the best in the test is bold."""
    rows = []
    for depth in dict.fromkeys(cell["depth"] for cell in cells):
        row = [cell for cell in cells if cell["depth"] == depth]
        best = min(row, key=lambda cell: numpy.mean(cell["error"]))
        chosen = min(row, key=lambda cell: cell["validation_error"])
        means = [
            f"**{_mean(cell['error'])}**" if cell is best else _mean(cell["error"]) for cell in row
        ]
        rows.append([depth, *means, title(chosen).removeprefix("rate ")])
    titles = dict.fromkeys(map(title, cells))
    return markdown(["hidden layers", *titles, "best in validation"], rows)


def _rows_per_mask(summary):
    arms = _short(summary, "arms")
    longer = summary.get("comparison", {}).get("arms", {})
    seconds = summary.get("timing", {}).get("epoch_seconds")
    rows = []
    for arm in ("per-sample", "8 rows", "32 rows", "batchwise", "exact count"):
        if arm in arms:
            row = [arm, _mean(arms[arm]["error"])]
            row.append(_mean(longer[arm]["error"]) if arm in longer else "")
            rows.append([*row, f"{seconds[arm]:.3f}" if seconds else ""])
    header = ["rows per mask", f"test error, %, {arms['none']['epochs']} epochs"]
    header.append(f"{longer['none']['epochs']} epochs" if longer else "more epochs")
    return markdown([*header, "seconds per epoch"], rows)


def _uncertainty(summary):
    rows = []
    for name, by_epochs in summary["uncertainty"].items():
        for epochs, runs in by_epochs.items():
            rows.append(
                [
                    name,
                    f"{epochs} epochs, {len(runs['rmse'])} splits",
                    _mean(runs["rmse"]),
                    _mean(runs["rmse_whole_network"]),
                    _mean(runs["log_likelihood"]),
                ]
            )
        for year, (rmse, rmse_error, likelihood, error) in PUBLISHED[name].items():
            rows.append(
                [
                    name,
                    f"published {year}",
                    f"{rmse:.2f} ± {rmse_error:.2f}",
                    "",
                    f"{likelihood:.2f} ± {error:.2f}",
                ]
            )
    header = ["set", "what", "RMSE", "RMSE without dropout at test time", "log-likelihood"]
    return markdown(header, rows)


# Name of the table: the part it needs, and how it is made.
TABLES = {
    "expected": ("comparison", _expected),
    "comparison": ("comparison", _comparison),
    "tuning": ("comparison", _tuning),
    "shorter": ("shorter", _shorter),
    "shorter-tuning": ("shorter", _shorter_tuning),
    "epochs": ("timing", _timing),
    "races": ("timing", _races),
    "sizes": ("size", _sizes),
    "rates": ("rate", _rates),
    "depths": ("depth", _depths),
    "wider": ("wider", _wider),
    "masks": ("masks", _masks),
    "rows-per-mask": ("shorter", _rows_per_mask),
    "uncertainty": ("uncertainty", _uncertainty),
}
