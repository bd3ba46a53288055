"""The solver "lbfgs": SciPy's L-BFGS-B on all examples at once, without dropout."""

import warnings

import numpy
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from fastdrop.callers import warn_caller
from fastdrop.estimators.objective import Objective
from fastdrop.estimators.progress import Progress
from fastdrop.estimators.rows import chunk_rows
from fastdrop.estimators.training import give_up, is_finite

__all__ = ["minimise"]


class _Loss:
    """Loss and gradient of a network as a function of one vector of all its parameters.

    Parameters
    ----------
    model : MultilayerPerceptron
    training : Examples

    Attributes
    ----------
    last : float
        The loss of the last evaluation.
    """

    def __init__(self, model, training):
        self.last = numpy.inf
        self._network = model._network
        parameters = self._network.parameters()
        # In scikit-learn's order: all weights, then all biases.
        self._parameters = [p for p in parameters if p.value.ndim == 2]
        self._matrices = len(self._parameters)
        self._parameters += [p for p in parameters if p.value.ndim == 1]
        self._objective = Objective(model.out_activation_, model.n_outputs_)
        self._alpha = model.alpha
        self._training = training
        self._total = float(len(training))
        if training.weights is not None:
            self._total = float(training.weights[training.places].sum())

    def vector(self):
        """The parameters there are, as one float64 vector."""
        return numpy.concatenate([p.value.ravel() for p in self._parameters], dtype=numpy.float64)

    def take_over(self, vector):
        """Set the parameters."""
        first = 0
        for parameter in self._parameters:
            last = first + parameter.value.size
            parameter.value[...] = vector[first:last].reshape(parameter.value.shape)
            first = last

    def __call__(self, vector):
        """Return the loss, a float, and its gradient, of the vector's shape and dtype."""
        self.take_over(vector)
        training, network = self._training, self._network
        value, sums = 0.0, numpy.zeros_like(vector)
        rows = chunk_rows(network)
        for first in range(0, len(training), rows):
            chosen = training.places[first : first + rows]
            weights = None if training.weights is None else training.weights[chosen]
            weight = float(len(chosen) if weights is None else weights.sum())
            if not weight:
                continue
            raw = network.forward(training.rows.take(chosen), training=True)
            loss, grad = self._objective(raw, training.target[chosen], weights)
            network.backward(grad)
            share = weight / self._total
            value += share * loss
            sums += share * numpy.concatenate([p.grad.ravel() for p in self._parameters])
        if self._alpha:
            size = sum(p.value.size for p in self._parameters[: self._matrices])
            weights = vector[:size]
            value += 0.5 * self._alpha * float(weights @ weights) / self._total
            sums[:size] += self._alpha / self._total * weights
        self.last = value
        return value, sums


def minimise(model, training):
    """Fit a model's network, and set what its fit is to tell.

    Parameters
    ----------
    model : MultilayerPerceptron
    training : Examples

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If `max_iter` iterations or `max_fun` evaluations end it.

    Raises
    ------
    ValueError
        If weights are infinite or NaN in the end.
    """
    loss = _Loss(model, training)
    options = {"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol}
    progress = Progress(model.verbose, model.max_iter, model._network.dtype)
    model.n_iter_, model.loss_ = 0, numpy.inf
    reached = loss.vector()

    def iteration_ends(vector):
        model.n_iter_ += 1
        model.loss_ = loss.last
        reached[...] = vector
        progress.done(model.n_iter_, loss.last, None)

    try:
        done = scipy.optimize.minimize(
            loss, reached.copy(), method="L-BFGS-B", jac=True, options=options,
            callback=iteration_ends,
        )  # fmt: skip
    except KeyboardInterrupt:
        warn_caller("Training interrupted by user. The model keeps what it has learnt")
        loss.take_over(reached)
    else:
        loss.take_over(done.x)
        model.n_iter_ = _iterations(done, model.max_iter)
        model.loss_ = float(done.fun)
    finally:
        progress.close()
    if not is_finite(model._network):
        give_up(model)


def _iterations(done, max_iter):
    """How many iterations there were; scikit-learn's warning, if they did not converge."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = _check_optimize_result("lbfgs", done, max_iter)
    for warning in caught:
        warn_caller(str(warning.message), warning.category)
    return count
