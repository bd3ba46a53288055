"""Choosing settings on held-out training examples: one grid and one budget for every arm."""

import dataclasses
import math

import numpy

from .runner import Request

__all__ = ["Grid", "Tuned", "tune"]


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is tried for each arm.

    First every learning rate with every `max_norms`, then, at the best learning rate, every
    `further_max_norms`.

    Parameters
    ----------
    learning_rates : tuple of float
        Ascending.
    max_norms, further_max_norms : tuple of float or None
    seeds : tuple of int
        Each has its own validation examples, the same ones for every arm.
    """

    learning_rates: tuple[float, ...]
    max_norms: tuple[float | None, ...] = (None,)
    further_max_norms: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)

    @property
    def trials(self):
        """Runs for each arm."""
        settings = len(self.learning_rates) * len(self.max_norms) + len(self.further_max_norms)
        return settings * len(self.seeds)

    def first(self, settings):
        """Return the settings of the first stage."""
        return [
            dataclasses.replace(settings, learning_rate=learning_rate, max_norm=max_norm)
            for max_norm in self.max_norms
            for learning_rate in self.learning_rates
        ]

    def second(self, best):
        """Return the settings of the second stage."""
        return [dataclasses.replace(best, max_norm=max_norm) for max_norm in self.further_max_norms]

    def edges(self, best):
        """Return which of the best values lie on the grid's edge, by name.

        No bound at all is the natural end of the norms and no edge.
        """
        found = []
        if best.learning_rate in (self.learning_rates[0], self.learning_rates[-1]):
            found.append("learning_rate")
        bounds = [bound for bound in (*self.max_norms, *self.further_max_norms) if bound]
        if len(bounds) > 1 and best.max_norm == min(bounds):
            found.append("max_norm")
        return found


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What tuning found for one arm.

    Parameters
    ----------
    settings : Settings
        The best.
    trials : list of dict
        Learning rate, max-norm, mean validation error and mean loss of each trial.
    edges : list of str
        Which of the best values lie on the grid's edge.
    """

    settings: object
    trials: list
    edges: list


def tune(runner, bases, grid, examples):
    """Find the best settings for several arms.

    The best has the smallest mean error over the grid's seeds; among equals, the smallest loss.

    Parameters
    ----------
    runner : Runner
    bases : list of Settings
        One for each arm; their learning rate, max-norm and seed are of no account.
    grid : Grid
    examples : int
        Training examples, a fifth of which is held out.

    Returns
    -------
    list of Tuned
    """
    first = _scored(runner, [grid.first(base) for base in bases], grid, examples, "tuning")
    best = [min(trials, key=_order)[0] for trials in first]
    second = _scored(
        runner, [grid.second(settings) for settings in best], grid, examples, "tuning max-norm"
    )
    found = []
    for trials, further in zip(first, second, strict=True):
        trials = trials + further
        settings = min(trials, key=_order)[0]
        table = [
            {
                "learning_rate": tried.learning_rate,
                "max_norm": tried.max_norm,
                "error": error,
                "loss": loss if math.isfinite(loss) else None,
            }
            for tried, error, loss in trials
        ]
        found.append(Tuned(settings, table, grid.edges(settings)))
    return found


def _order(trial):
    _, error, loss = trial
    return error, loss


def _scored(runner, settings, grid, examples, label):
    """For each arm a list of (settings, mean error, mean loss); all runs are asked for at once."""
    requests = [
        Request(dataclasses.replace(one, seed=seed), "validation", examples)
        for arm in settings
        for one in arm
        for seed in grid.seeds
    ]
    results = iter(runner.results(requests, label))
    scored = []
    for arm in settings:
        scored.append([])
        for one in arm:
            of_seeds = [next(results) for _ in grid.seeds]
            losses = [math.inf if run["loss"] is None else run["loss"] for run in of_seeds]
            error = float(numpy.mean([run["error"] for run in of_seeds]))
            scored[-1].append((one, error, float(numpy.mean(losses))))
    return scored
