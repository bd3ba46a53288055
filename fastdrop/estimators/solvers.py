"""What moves the parameters: "adam" and "sgd" step by step, "lbfgs" on all examples at once.

Weights and biases have an optimiser each, since the penalty is on the weights alone. L-BFGS-B is
SciPy's.
"""

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from fastdrop import nn, optim
from fastdrop.callers import warn_caller
from fastdrop.estimators.examples import Examples, chunk_rows
from fastdrop.estimators.network import Objective
from fastdrop.estimators.training import give_up, is_finite
from fastdrop.optim.optimiser import Optimiser
from fastdrop.progress import Progress
from fastdrop.types import Array

if TYPE_CHECKING:
    from fastdrop.estimators.base import MultilayerPerceptron

__all__ = ["Solver", "minimise"]

# `adaptive` stops for good when its learning rate has come down to this.
SMALLEST_RATE = 1e-6

# The parameters of the estimators that are a solver's business.
SETTINGS = (
    "solver", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum",
    "beta_1", "beta_2", "epsilon", "max_norm",
)  # fmt: skip


class Solver:
    """Steps of a network's parameters.

    Parameters
    ----------
    network : nn.Sequential
    settings : dict
        The estimator's parameters, by their names; those of `SETTINGS` are used.

    Attributes
    ----------
    settings : dict
    learning_rate : float
        Of the next step.
    """

    def __init__(self, network: nn.Sequential, settings: dict[str, Any]) -> None:
        self.settings = {name: settings[name] for name in SETTINGS}
        self.learning_rate = float(settings["learning_rate_init"])
        parameters = network.parameters()
        self._weights = self._optimiser([p for p in parameters if p.value.ndim == 2], True)
        self._biases = self._optimiser([p for p in parameters if p.value.ndim == 1], False)

    @property
    def optimisers(self) -> list[Optimiser]:
        """list: the two optimisers, of the weights and of the biases."""
        return [self._weights, self._biases]

    def _optimiser(self, parameters: list[nn.Parameter], bounded: bool) -> Any:
        settings = self.settings
        max_norm = settings["max_norm"] if bounded else None
        if settings["solver"] == "adam":
            return optim.Adam(
                parameters,
                self.learning_rate,
                beta1=settings["beta_1"],
                beta2=settings["beta_2"],
                epsilon=settings["epsilon"],
                max_norm=max_norm,
            )
        momentum = settings["momentum"]
        return optim.SGD(
            parameters,
            self.learning_rate,
            momentum=min(momentum, math.nextafter(1.0, 0.0)),
            nesterov=bool(settings["nesterovs_momentum"] and momentum > 0),
            max_norm=max_norm,
        )

    @property
    def steps(self) -> int:
        """int: steps made."""
        return int(self._weights.steps)

    def step(self, penalty: float) -> None:
        """Move the parameters by the gradients they have.

        Parameters
        ----------
        penalty : float
            Factor on the weights that is added to their gradient.
        """
        weights, biases = self._weights, self._biases
        weights.weight_decay = penalty
        if self.settings["solver"] == "adam":
            # The published algorithm adds epsilon to the root of the corrected second moment,
            # scikit-learn, as the paper's remark at the end of section 2, to that of the other.
            correction = math.sqrt(1 - self.settings["beta_2"] ** (weights.steps + 1))
            weights.epsilon = biases.epsilon = self.settings["epsilon"] / correction
        weights.step()
        biases.step()

    def epoch_ends(self, samples: int) -> None:
        """Let the schedule set the learning rate.

        Parameters
        ----------
        samples : int
            Examples seen since the network was made.
        """
        settings = self.settings
        if settings["solver"] == "sgd" and settings["learning_rate"] == "invscaling":
            self._set_rate(settings["learning_rate_init"] / (samples + 1) ** settings["power_t"])

    def slow_down(self) -> bool:
        """Divide the learning rate by 5 if it is adaptive; False where training should stop."""
        adaptive = self.settings["solver"] == "sgd" and self.settings["learning_rate"] == "adaptive"
        if not adaptive or self.learning_rate <= SMALLEST_RATE:
            return False
        self._set_rate(self.learning_rate / 5)
        return True

    def _set_rate(self, rate: float) -> None:
        """Change the rate of the steps to come; a step under way keeps its speed.

        Scikit-learn's velocities hold the rate they were made with, those of `optim.SGD` get the
        present one. A rate that is multiplied by a factor divides the velocities by it.
        """
        factor = self.learning_rate / rate
        for optimiser in (self._weights, self._biases):
            optimiser.learning_rate = rate
            state = optimiser.state_dict()
            for name, value in state.items():
                if name.endswith(".velocity"):
                    value *= factor
            optimiser.load_state_dict(state)
        self.learning_rate = rate

    def state(self) -> dict[str, Any]:
        """Return all that going on with it needs, beside the network."""
        return {
            "settings": self.settings,
            "learning_rate": self.learning_rate,
            "weights": self._weights.state_dict(),
            "biases": self._biases.state_dict(),
        }

    @classmethod
    def from_state(
        cls,
        network: nn.Sequential,
        state: dict[str, Any],
        settings: dict[str, Any] | None = None,
    ) -> "Solver":
        """Return a solver that goes on where another one's `state` was taken.

        Parameters
        ----------
        network : nn.Sequential
            With the parameters, or parameters of the same shapes.
        state : dict
        settings : dict, optional
            Others than those in the state. Moments and velocities are kept where the algorithm
            and the dtype stay the same; another `learning_rate_init` holds at once.

        Returns
        -------
        Solver
        """
        before = state["settings"]
        solver = cls(network, settings or before)
        if solver.settings["solver"] != before["solver"]:
            return solver
        wanted = solver.learning_rate
        same = all(solver.settings[k] == before[k] for k in ("learning_rate", "learning_rate_init"))
        for name in ("weights", "biases"):
            optimiser = getattr(solver, f"_{name}")
            mine, given = optimiser.state_dict(), state[name]
            memory = {k: given[k] for k in mine if "." in k and k in given}
            if any(getattr(mine[k], "dtype", None) != getattr(v, "dtype", None)
                   for k, v in memory.items()):  # fmt: skip
                return cls(network, settings or before)
            optimiser.load_state_dict(mine | memory | {"steps": given["steps"]})
            optimiser.learning_rate = state["learning_rate"]
        solver.learning_rate = state["learning_rate"]
        if not same:
            solver._set_rate(wanted)
        return solver


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

    def __init__(self, model: "MultilayerPerceptron", training: Examples) -> None:
        self.last: float = numpy.inf
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

    def vector(self) -> Array:
        """The parameters there are, as one float64 vector."""
        return numpy.concatenate([p.value.ravel() for p in self._parameters], dtype=numpy.float64)

    def take_over(self, vector: Array) -> None:
        """Set the parameters."""
        first = 0
        for parameter in self._parameters:
            last = first + parameter.value.size
            parameter.value[...] = vector[first:last].reshape(parameter.value.shape)
            first = last

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """Return the loss, a float, and its gradient, of the vector's shape and dtype."""
        self.take_over(vector)
        training, network = self._training, self._network
        value, sums = 0.0, numpy.zeros(vector.shape)
        rows = chunk_rows(network)
        for first in range(0, len(training), rows):
            chosen = training.places[first : first + rows]
            weights = None if training.weights is None else training.weights[chosen]
            weight = float(len(chosen) if weights is None else weights.sum())
            if not weight:
                continue
            loss = training.gradients(network, self._objective, chosen)
            share = weight / self._total
            value += share * loss
            grads: list[Any] = [p.grad for p in self._parameters]
            sums += share * numpy.concatenate([grad.ravel() for grad in grads])
        if self._alpha:
            size = sum(p.value.size for p in self._parameters[: self._matrices])
            weights = vector[:size]
            value += 0.5 * self._alpha * float(weights @ weights) / self._total
            sums[:size] += self._alpha / self._total * weights
        self.last = value
        return value, sums


def minimise(model: "MultilayerPerceptron", training: Examples) -> None:
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

    def iteration_ends(vector: Array) -> None:
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


def _iterations(done: Any, max_iter: int) -> int:
    """How many iterations there were; scikit-learn's warning, if they did not converge."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count: int = _check_optimize_result("lbfgs", done, max_iter)
    for warning in caught:
        warn_caller(str(warning.message), warning.category)
    return count
