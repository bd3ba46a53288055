"""The fit: epochs of steps, when to stop, which weights to keep."""

import math

import numpy
from sklearn.exceptions import ConvergenceWarning

from fastdrop.callers import warn_caller
from fastdrop.estimators.early_stopping import EarlyStopping
from fastdrop.estimators.objective import Objective
from fastdrop.estimators.progress import Progress
from fastdrop.estimators.stopping import stopping_rule

__all__ = ["give_up", "is_finite", "train"]


def train(model, training, held_out, single):
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
    if held_out is None:
        rule = stopping_rule(model, training, -(-len(training) // batch), single)
    else:
        rule = EarlyStopping(model, held_out)
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
            progress.done(model.n_iter_, model.loss_, rule.score if held_out else None)
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
    if held_out is not None:
        rule.restore()
    elif not is_finite(model._network):
        give_up(model)
    else:
        rule.tell(batch)
    if model.n_iter_ and math.isinf(model.loss_) and model._network.dtype == numpy.float32:
        warn_caller("The loss overflows: scale the data, or compute in float64 (dtype='float64')")


def is_finite(network):
    """Whether all weights and biases of a network are finite."""
    return all(numpy.isfinite(parameter.value).all() for parameter in network.parameters())


def give_up(model):
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


def _batch_size(wanted, samples):
    if wanted == "auto":
        return min(200, samples)
    if wanted > samples:
        warn_caller(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped: "
            f"batch_size={wanted}, {samples} samples"
        )
    return min(int(wanted), samples)


def _epoch(model, objective, training, order, batch):
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


def _stops(model, progress, rule):
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
