"""Seconds of the study: epochs of all arms in turn, and the way to a given validation score."""

import dataclasses
import statistics
import time

from .measuring import RUNS, error_of
from .parts import tuned_arms
from .runner import Request, split_of
from .store import spec_of

__all__ = ["epoch_seconds", "race", "timing"]

RACERS = ("32 rows", "batchwise", "per-sample", "torch per-sample")


def epoch_seconds(load, settings, examples, rounds):
    """Measure an epoch of several runs, in turn.

    Parameters
    ----------
    load : callable
        Returns the `Digits`.
    settings : dict
        Settings by name.
    examples, rounds : int

    Returns
    -------
    dict
        By name, the median of the rounds' seconds; a first round is not counted.
    """
    seconds = {name: [] for name in settings}
    runs = {}
    for name, one in settings.items():
        training, _ = split_of(load, one, "validation", examples)
        runs[name] = RUNS[one.library](one, training)
    for number in range(rounds + 1):
        for name, run in runs.items():
            spent = _timed(run.epoch)
            if number:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def race(load, settings, examples, target):
    """Let runs train epoch by epoch in turn, each until its validation error is at most `target`.

    Parameters
    ----------
    load : callable
        Returns the `Digits`.
    settings : dict
        Settings by name, of one seed.
    examples : int
    target : float
        Per cent.

    Returns
    -------
    dict
        By name: "epochs", "seconds" of training until then, both None where the target was not
        reached by the last epoch; "error" then.
    """
    found, runs = {}, {}
    for name, one in settings.items():
        training, held_out = split_of(load, one, "validation", examples)
        runs[name] = RUNS[one.library](one, training)
    spent = dict.fromkeys(runs, 0.0)
    epochs = 0
    while runs:
        epochs += 1
        for name in list(runs):
            run = runs[name]
            spent[name] += _timed(run.epoch)
            error = error_of(run.scores(held_out.images), held_out.labels)
            reached = error <= target
            if reached or epochs == settings[name].epochs:
                found[name] = {
                    "epochs": epochs if reached else None,
                    "seconds": spent[name] if reached else None,
                    "error": error,
                }
                del runs[name]
    return found


def _timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def timing(runner, plan):
    """The seconds of part 1, on one thread; to be run on a machine that does nothing else.

    An epoch of every arm; and for each of `plan.race_seeds` the way to the best validation score
    that the network without dropout has after any epoch.

    Parameters
    ----------
    runner : Runner
        With one worker.
    plan : Plan

    Returns
    -------
    dict
        "epoch_seconds" by arm; "races": for each seed, its target and what `race` returns.
    """
    tuned = {arm: found.settings for arm, found in tuned_arms(runner, plan).items()}
    tuned["8 rows"] = tuned["32 rows"].at_arm("8 rows")
    for arm in ("none", "per-sample"):
        tuned[f"torch {arm}"] = dataclasses.replace(tuned[arm], library="torch")
    specs = {name: spec_of(one) for name, one in tuned.items()}
    arguments = (runner.load, tuned, plan.examples, plan.rounds)
    task = ({"timing": "epoch", "rounds": plan.rounds, "arms": specs}, epoch_seconds, arguments)
    (seconds,) = runner.done([task], "timing, epochs")
    requests = [
        Request(dataclasses.replace(tuned["none"], seed=seed), "validation", plan.examples)
        for seed in plan.race_seeds
    ]
    without = runner.results(requests, "timing, no dropout")
    races = []
    for seed, run in zip(plan.race_seeds, without, strict=True):
        racers = {name: dataclasses.replace(tuned[name], seed=seed) for name in RACERS}
        target = min(run["curve"])
        spec = {"timing": "race", "seed": seed, "arms": {name: specs[name] for name in RACERS}}
        arguments = (runner.load, racers, plan.examples, target)
        (found,) = runner.done([(spec, race, arguments)], f"timing, race {seed}")
        races.append({"seed": seed, "target": target, "racers": found})
    return {"epoch_seconds": seconds, "races": races}
