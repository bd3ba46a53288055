"""Plots of the study's summary, as SVG that is the same for the same summary."""

import pathlib

import numpy

from .measuring import DIVERGED
from .statistics import standard_error

__all__ = ["plot"]


def plot(summary, folder):
    """Draw the plots that the summary has the data for.

    Parameters
    ----------
    summary : dict
        What the parts returned, by the part's name.
    folder : str or pathlib.Path

    Returns
    -------
    list of pathlib.Path
        The files written.
    """
    import matplotlib

    settings = {"svg.hashsalt": "fastdrop", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        return [
            _drawn(draw, summary[part], pathlib.Path(folder) / f"study-{part}.svg")
            for part, draw in (("size", _sizes), ("rate", _rates), ("depth", _depths))
            if part in summary
        ]


def _drawn(draw, found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    draw(axes, found)
    axes.set_ylabel("error, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center")
    figure.savefig(path, metadata={"Date": None})
    return path


def _line(axes, positions, runs, label):
    """Means with their standard errors; nothing where a run diverged."""
    axes.errorbar(
        positions,
        [numpy.nan if DIVERGED in each else numpy.mean(each) for each in runs],
        [standard_error(each) if len(each) > 1 else 0 for each in runs],
        marker="o",
        markersize=3,
        capsize=2,
        label=label,
    )


def _sizes(axes, found):
    for arm, by_size in found.items():
        _line(axes, list(map(int, by_size)), [runs["error"] for runs in by_size.values()], arm)
    axes.set_xscale("log")
    axes.set_xlabel("training examples")


def _rates(axes, found):
    rates = list(map(float, found))
    _line(axes, rates, [runs["error"] for runs in found.values()], "test")
    _line(axes, rates, [runs["training_error"] for runs in found.values()], "training")
    axes.set_xlabel("dropout rate of the hidden layers")


def _depths(axes, cells):
    for depth in dict.fromkeys(cell["depth"] for cell in cells):
        row = [cell for cell in cells if cell["depth"] == depth]
        label = f"{depth} hidden layer{'s' if depth > 1 else ''}, test"
        _line(axes, [cell["rate"] for cell in row], [cell["error"] for cell in row], label)
    axes.set_xlabel("dropout rate of the hidden layers")
