"""The fit by epochs: steps, when to stop, which weights to keep.

Without early stopping, scikit-learn's rule ends a fit without dropout, and `TrendRule` one with.
"""

import math
import sys
from typing import TYPE_CHECKING, Protocol

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring

from fastdrop import nn
from fastdrop.callers import warn_caller
from fastdrop.estimators.examples import Examples
from fastdrop.estimators.network import Objective
from fastdrop.progress import Progress
from fastdrop.types import Array

if TYPE_CHECKING:
    from fastdrop.estimators.base import MultilayerPerceptron

__all__ = ["give_up", "is_finite", "train"]

# Steps that the loss is averaged over at least. On unscaled data Adam takes 100 of them to settle,
# and masks make losses rise for as long; `python -m bench.studies.stopping` measures the rule.
LEAST_STEPS = 300
# Windows of losses without a lower mean that end a fit.
PATIENCE = 2
# Steps between two looks at the whole network, at least.
STEPS_BETWEEN = 10
# Training rows it is looked at with: a twentieth, and all of them up to this many. A look costs a
# few per cent of an epoch then, also where masks make steps four times faster than its products.
LEAST_ROWS = 200
# A batchwise fit ends far from its training data if their loss is so many times the lowest it had,
# and higher by this share of the loss that scores of 0 have; or if all of its units have died.
FAR = 1.25
FAR_OF_SCALE = 0.05


def train(
    model: "MultilayerPerceptron", training: Examples, held_out: Examples | None, single: bool
) -> None:
    """Train a model's network, and set what its fit is to tell.

    An interrupt ends it, which `_interrupted` says: callers of `partial_fit` may have more to end.

    Parameters
    ----------
    model : MultilayerPerceptron
        With `_network`, `_solver` and `_random_state`.
    training : Examples
    held_out : Examples or None
        For early stopping.
    single : bool
        One epoch, as `partial_fit` does.

    Raises
    ------
    ValueError
        If weights become infinite or NaN, and no early stopping has kept better ones.
    """
    batch = _batch_size(model.batch_size, len(training))
    objective = Objective(model.out_activation_, model.n_outputs_)
    epochs = 1 if single else model.max_iter
    model.n_iter_ = 0
    model._interrupted = False
    rule: Rule
    if held_out is not None:
        rule = EarlyStopping(model, held_out)
    elif single or not any(model._architecture["rates"]):
        rule = LossRule(model)  # nothing stops an epoch of `partial_fit`: it only counts
    else:
        rule = TrendRule(model, training, -(-len(training) // batch))
    progress = Progress(model.verbose, epochs, model._network.dtype)
    try:
        order = training.places
        for _ in range(epochs):
            if model.shuffle:
                # The numbers that scikit-learn takes from the random state, and its order.
                places = numpy.arange(len(order))
                model._random_state.shuffle(places)
                order = order[places]
            model.loss_ = _epoch(model, objective, training, order, batch)
            model.n_iter_ += 1
            model.t_ += len(order)
            model.loss_curve_.append(model.loss_)
            converged = rule.converged()
            if held_out is None:
                model.best_loss_ = min(model.best_loss_, model.loss_)
            progress.done(model.n_iter_, model.loss_, rule.score)
            if not math.isfinite(model.loss_) and not is_finite(model._network):
                give_up(model)
                break
            model._solver.epoch_ends(model.t_)
            if converged and _stops(model, progress, rule):
                break
            if not single and model.n_iter_ == epochs:
                warn_caller(
                    f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                )
    except KeyboardInterrupt:
        model._interrupted = True
        warn_caller("Training interrupted by user. The model keeps what it has learnt")
    finally:
        progress.close()
    if held_out is None and not is_finite(model._network):
        give_up(model)
    rule.end(batch)
    if model.n_iter_ and math.isinf(model.loss_) and model._network.dtype == numpy.float32:
        warn_caller("The loss overflows: scale the data, or compute in float64 (dtype='float64')")


def is_finite(network: nn.Sequential) -> bool:
    """Whether all weights and biases of a network are finite."""
    return all(numpy.isfinite(parameter.value).all() for parameter in network.parameters())


def give_up(model: "MultilayerPerceptron") -> None:
    """Raise since weights are not finite; warn where early stopping has kept better ones.

    Raises
    ------
    ValueError
    """
    dtype = model._network.dtype
    cause = f"learning_rate_init={model.learning_rate_init:g} may be too large"
    if model.solver == "lbfgs":
        cause = "the data may be in need of scaling"
    if dtype == numpy.float32:
        cause += ", or numbers overflow float32: scale the data, or use dtype='float64'"
    where = f"after epoch {model.n_iter_}, in {dtype}: {cause}"
    if model.solver == "lbfgs" or not model.early_stopping:
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values "
            f"and need to be preprocessed. They are not finite {where}"
        )
    scores = [score for score in model.validation_scores_ if not math.isnan(score)]
    kept = "those of the best epoch" if scores else "the initial ones"
    warn_caller(
        f"Solver produced non-finite parameter weights {where}. The model has {kept}",
        ConvergenceWarning,
    )


def _batch_size(wanted: int | str, samples: int) -> int:
    if isinstance(wanted, str):
        return min(200, samples)
    if wanted > samples:
        warn_caller(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped: "
            f"batch_size={wanted}, {samples} samples"
        )
    return min(int(wanted), samples)


def _epoch(
    model: "MultilayerPerceptron",
    objective: Objective,
    training: Examples,
    order: Array,
    batch: int,
) -> float:
    """Pass over the examples in this order; return the mean loss of the batches."""
    network, solver, alpha = model._network, model._solver, model.alpha
    matrices = [p.value.reshape(-1) for p in network.parameters() if p.value.ndim == 2]
    weights = training.weights
    accumulated, seen = 0.0, 0
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        shares = None if weights is None else weights[chosen]
        total = len(chosen) if shares is None else float(shares.sum())
        if not total:
            continue  # nothing to learn from these
        value = training.gradients(network, objective, chosen)
        if alpha:
            squares = sum(float(numpy.dot(matrix, matrix)) for matrix in matrices)
            value += 0.5 * alpha * squares / total
        accumulated += value * len(chosen)
        seen += len(chosen)
        solver.step(alpha / total)
    return accumulated / seen


def _stops(model: "MultilayerPerceptron", progress: Progress, rule: "Rule") -> bool:
    """Whether training ends here; otherwise the learning rate is smaller from now on."""
    what = "Validation score" if model.early_stopping else "Training loss"
    reason = (
        f"{what} did not improve more than tol={model.tol:f} for {model.n_iter_no_change} "
        "consecutive epochs"
    )
    if model._solver.slow_down():
        progress.say(f"{reason}. Setting learning rate to {model._solver.learning_rate:f}")
        rule.restart()
        return False
    progress.say(f"{reason}. Stopping.")
    return True


class Rule(Protocol):
    """When a fit has converged, and what happens to its weights in the end."""

    score: float | None  # of what is held out, after the last epoch

    def converged(self) -> bool: ...

    def restart(self) -> None: ...

    def end(self, batch: int) -> None: ...


class LossRule:
    """scikit-learn's: the loss of an epoch has to improve on the best one.

    Parameters
    ----------
    model : MultilayerPerceptron
        Holds the count of epochs without improvement from one fit to the next.
    """

    score: float | None = None

    def __init__(self, model: "MultilayerPerceptron") -> None:
        self._model = model

    def converged(self) -> bool:
        """Look at the epoch that ends, and return whether the learning rate is used up."""
        model = self._model
        if model.loss_ > model.best_loss_ - model.tol:
            model._no_improvement_count += 1
        else:
            model._no_improvement_count = 0
        return bool(model._no_improvement_count > model.n_iter_no_change)

    def restart(self) -> None:
        """Begin anew with another learning rate."""
        self._model._no_improvement_count = 0

    def end(self, batch: int) -> None:
        """Leave the network as it is."""


class TrendRule:
    """With dropout: the loss of the whole network, averaged over a window, has to fall on.

    The loss of an epoch is that of its masks, and with few steps to an epoch their noise is larger
    than what is learnt in ten epochs. So the network sees a part of the training rows without
    masks, and their loss is averaged over a window: `n_iter_no_change` epochs, and 300 steps at
    least. Training has converged when two windows bring the lowest average down by less than `tol`
    for every two epochs; scikit-learn's rule asks for `tol` in one of ten.

    Parameters
    ----------
    model : MultilayerPerceptron
    training : Examples
    steps : int
        Of an epoch.
    """

    score: float | None = None

    def __init__(self, model: "MultilayerPerceptron", training: Examples, steps: int) -> None:
        self._model = model
        self._part = training.part(max(LEAST_ROWS, len(training) // 20))
        self._between = -(-STEPS_BETWEEN // steps)
        epochs = max(model.n_iter_no_change, -(-LEAST_STEPS // steps))
        # An infinite patience is one that no list of losses is as long as.
        self._window = sys.maxsize if math.isinf(epochs) else int(-(-epochs // self._between))
        self._patience = PATIENCE * self._window
        self._least_fall = model.tol / 2 * self._patience * self._between
        self._losses: list[float] = []
        self._lowest_means: list[float] = []
        self._lowest = math.inf

    def converged(self) -> bool:
        """Look at the epoch that ends, and return whether the learning rate is used up."""
        if self._model.n_iter_ % self._between:
            return False
        self._losses.append(self._part.loss(self._model))
        self._lowest = min(self._lowest, self._losses[-1])
        if len(self._losses) < self._window:
            return False
        mean = float(numpy.mean(self._losses[-self._window :]))
        lowest = self._lowest_means
        lowest.append(min(mean, lowest[-1]) if lowest else mean)
        if len(lowest) <= self._patience:
            return False
        return bool(lowest[-1 - self._patience] - lowest[-1] <= self._least_fall)

    def restart(self) -> None:
        """Begin anew with another learning rate."""
        self._losses.clear()
        self._lowest_means.clear()

    def end(self, batch: int) -> None:
        """Warn if a batchwise fit ends far from where it has been, or knows nothing of the rows.

        Parameters
        ----------
        batch : int
            Rows of a batch.
        """
        model = self._model
        masks = model.rows_per_mask
        if not self._losses or (masks != "batch" and masks < batch):
            return
        raw = self._part.raw(model._network)
        loss = self._part.loss(model, raw)
        scale = self._part.loss(model, numpy.zeros_like(raw))  # of a network that says 0 of all
        said = None
        if len(raw) > 1 and 1 not in model._architecture["rates"] and (raw == raw[0]).all():
            said = "the network says the same of every row"
        elif loss > FAR * self._lowest and loss - self._lowest > FAR_OF_SCALE * scale:
            said = f"without masks their loss is {loss:.3g}, and was {self._lowest:.3g} before"
        if said:
            warn_caller(
                f"the fit with rows_per_mask={masks!r} ends far from its training data: {said}. A "
                "batch that shares one mask needs a smaller learning_rate_init, or several masks, "
                f"such as rows_per_mask={max(batch // 8, 1)}"
            )


class EarlyStopping:
    """scikit-learn's rule: the validation score has to improve on the best one.

    Parameters
    ----------
    model : MultilayerPerceptron
        Holds the scores, the best of them, and the count of epochs without improvement.
    held_out : Examples

    Attributes
    ----------
    score : float or None
        Of the last epoch.
    """

    def __init__(self, model: "MultilayerPerceptron", held_out: Examples) -> None:
        self._model = model
        self._held_out = held_out
        self._scorer = None
        if model.scoring not in (None, "loss"):
            self._scorer = check_scoring(model, model.scoring)
        self._kept = [parameter.value.copy() for parameter in model._network.parameters()]
        self.score: float | None = None

    def converged(self) -> bool:
        """Score the epoch that ends, keep its weights if they are the best, count if not."""
        model = self._model
        score = self.score = self._scored()
        model.validation_scores_.append(score)
        if score < model.best_validation_score_ + model.tol:
            model._no_improvement_count += 1
        else:
            model._no_improvement_count = 0
        if score > model.best_validation_score_:
            model.best_validation_score_ = score
            for parameter, value in zip(model._network.parameters(), self._kept, strict=True):
                numpy.copyto(value, parameter.value)
        return bool(model._no_improvement_count > model.n_iter_no_change)

    def _scored(self) -> float:
        model, held_out = self._model, self._held_out
        if model.scoring == "loss":
            return float(-held_out.loss(model))
        if self._scorer is not None:
            return held_out.score(model, self._scorer)
        return float(model._validation_score(held_out.raw(model._network), *held_out.targets()))

    def restart(self) -> None:
        """Begin anew with another learning rate."""
        self._model._no_improvement_count = 0

    def end(self, batch: int) -> None:
        """Give the network the weights that were best."""
        for parameter, value in zip(self._model._network.parameters(), self._kept, strict=True):
            parameter.value[...] = value
