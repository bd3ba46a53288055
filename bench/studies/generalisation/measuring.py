"""Training to the end, with any of the libraries, and what came of it."""

import dataclasses
import time

import numpy

from fastdrop import nn

from .rivals import SklearnRun, TorchRun
from .training import FastdropRun

__all__ = ["DIVERGED", "RUNS", "Outcome", "error_of", "train"]

RUNS = {"fastdrop": FastdropRun, "torch": TorchRun, "sklearn": SklearnRun}
# What a network whose loss stopped being finite is said to get wrong: every digit.
DIVERGED = 100.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Parameters
    ----------
    error, training_error : float
        Per cent of the held-out and of the training examples that the network gets wrong.
    loss : float or None
        Mean cross-entropy of the held-out examples; None if the run diverged.
    seconds, cpu_seconds : float
        On the wall's clock and on the process's, of the training alone.
    curve : list of float or None
        Per cent of the held-out examples that it got wrong after each epoch, where asked for.
    """

    error: float
    training_error: float
    loss: float | None
    seconds: float
    cpu_seconds: float
    curve: list[float] | None = None


def error_of(scores, labels):
    """Return the per cent of examples whose largest score is not their label's."""
    return 100 * float(numpy.mean(numpy.argmax(scores, axis=1) != labels))


def loss_of(scores, labels):
    """Return the mean cross-entropy of the softmax."""
    value, _ = nn.SoftmaxCrossEntropy()(numpy.asarray(scores), labels)
    return float(value)


def train(settings, training, held_out, curve=False):
    """Train one network to the end and measure it.

    Parameters
    ----------
    settings : Settings
    training, held_out : Examples
    curve : bool, optional
        Measure the error of the held-out examples after each epoch too, not only after the last.

    Returns
    -------
    Outcome
    """
    run = RUNS[settings.library](settings, training)
    wall = cpu = 0.0
    errors = []
    for _ in range(settings.epochs):
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        try:
            run.epoch()
        except FloatingPointError:
            return Outcome(DIVERGED, DIVERGED, None, wall, cpu)
        wall += time.perf_counter() - wall_before
        cpu += time.process_time() - cpu_before
        if curve:
            errors.append(error_of(run.scores(held_out.images), held_out.labels))
    scores = run.scores(held_out.images)
    if not numpy.isfinite(scores).all():
        return Outcome(DIVERGED, DIVERGED, None, wall, cpu)
    return Outcome(
        error=error_of(scores, held_out.labels),
        training_error=error_of(run.scores(training.images), training.labels),
        loss=loss_of(scores, held_out.labels),
        seconds=wall,
        cpu_seconds=cpu,
        curve=errors if curve else None,
    )
