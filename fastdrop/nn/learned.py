"""Layers whose rates are learned: ConcreteDropout and StandoutDropout."""

import math
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import real_number
from fastdrop.attributes import read_only
from fastdrop.dropouts import (
    concrete_dropout,
    concrete_dropout_backward,
    standout,
    standout_backward,
)
from fastdrop.dropouts.learned import standout_mask
from fastdrop.nn.activations import ReLU
from fastdrop.nn.dense import Dense, set_gradient
from fastdrop.nn.elementwise import Elementwise
from fastdrop.nn.layer import as_floats, fitting_gradient
from fastdrop.nn.random import RandomLayer
from fastdrop.nn.weighted import WeightedLayer
from fastdrop.nn.windows import draw_noise
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["ConcreteDropout", "StandoutDropout"]


class ConcreteDropout(WeightedLayer, RandomLayer):
    """Dropout that learns its rate; see `fastdrop.concrete_dropout` [1]_.

    The parameter is the logit of the rate, ``log(rate / (1 - rate))``. The data alone would have it
    fall, so that a regulariser belongs to it: call `regularise` between `backward` and the
    optimiser's step.

    Parameters
    ----------
    rate : float, optional
        At first, in (0, 1).
    temperature : float, optional
        Greater than 0. May be set later.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Attributes
    ----------
    rate : float
        As it is now. Setting it sets the logit.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Notes
    -----
    An optimiser's `weight_decay` would draw the logit to 0, the rate to 0.5: give the layer a group
    of its own, without decay.

    References
    ----------
    .. [1] Y. Gal, J. Hron, A. Kendall, "Concrete dropout", NIPS 2017, section 3.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn, optim
    >>> dense, concrete = nn.Dense(8, 1), nn.ConcreteDropout(0.2)
    >>> net = nn.Sequential([concrete, dense], rng=0)
    >>> opt = optim.Adam(net, 0.01)
    >>> x = numpy.random.default_rng(0).standard_normal((100, 8))
    >>> for _ in range(100):
    ...     value, grad = nn.MeanSquaredError()(net.forward(x, training=True), x[:, :1])
    ...     net.backward(grad)
    ...     value += concrete.regularise(dense, dropout=2 / len(x), weight=1e-4)
    ...     opt.step()
    >>> concrete.rate < 0.2
    True
    """

    _sealed = True
    _kept: Any = None

    def __init__(
        self, rate: float = 0.1, *, temperature: float = 0.1, rng: RandomSource = None
    ) -> None:
        RandomLayer.__init__(self, rng)
        self._initial_logit = _logit(rate)
        self.temperature = temperature

    @property
    def rate(self) -> float:
        """float: the current rate."""
        made = self._made
        logit = self._initial_logit if made is None else float(made["logit"].value[0])
        return 1 / (1 + math.exp(-logit))

    @rate.setter
    def rate(self, rate: float) -> None:
        if self._made is None:
            self._initial_logit = _logit(rate)
        else:
            self._made["logit"].value[0] = _logit(rate)

    @property
    def temperature(self) -> float:
        """float: the smaller it is, the nearer the factors are to 0 and 1."""
        return self._temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        temperature = real_number(temperature, "temperature")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}")
        self._temperature = temperature

    def settings(self) -> dict[str, Any]:
        """Return the temperature, by name."""
        return {"temperature": self._temperature}

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        return {"logit": numpy.array([self._initial_logit])}

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return x with units dropped, or outside of training x, copied.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, shape (batch, ...)
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        if not training:
            return x.copy()
        self.parameters()
        rate, temperature = self.rate, self._temperature
        drawn: dict[str, Any] = {"rng": self.stream}
        if self._rows is not None:
            drawn = {"noise": draw_noise(self.stream, "uniform", x.shape, 1.0, False, self._rows)}
        y, noise = concrete_dropout(x, rate, temperature=temperature, **drawn)
        self._kept = x.copy(), rate, noise, temperature
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradient of the logit; return the input's, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        x, rate, noise, temperature = self._kept
        grad = fitting_gradient(grad, x.shape, x.dtype, self.name)
        given, of_logit = concrete_dropout_backward(grad, x, rate, noise, temperature=temperature)
        set_gradient(self._parameter("logit"), numpy.array([of_logit], self._dtype()))
        return given if input_gradient else None

    def regularise(self, dense: Dense, *, dropout: float, weight: float = 0.0) -> float:
        """Add the regulariser's gradients to those of the last backward pass; return its value.

        ``weight * sum(w**2) / (1 - rate) + dropout * units * (rate * log(rate) + (1 - rate) *
        log(1 - rate))`` for the weights w, of `units` rows, behind this layer (equations 3 and 4 of
        [1]_; the factors for N examples and a squared loss: ``l**2 / N`` and ``2 / N``, with the
        prior's length scale l).

        Parameters
        ----------
        dense : Dense
            The layer behind this one.
        dropout, weight : float
            Factors, at least 0.

        Raises
        ------
        RuntimeError
            Before a backward pass.
        TypeError, ValueError
            If an argument is not such.
        """
        if not isinstance(dense, Dense):
            raise TypeError(f"dense must be an nn.Dense, got {type(dense).__name__}")
        factors = {
            "dropout": real_number(dropout, "dropout"),
            "weight": real_number(weight, "weight"),
        }
        for name, value in factors.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        logit, weights = self._parameter("logit"), dense.parameters()[0]
        if logit.grad is None or weights.grad is None:
            raise RuntimeError(f"{self.name}: regularise() comes after a backward pass")
        rate = self.rate
        squares = float(numpy.square(weights.value, dtype=numpy.float64).sum())
        value = factors["weight"] * squares / (1 - rate)
        value += factors["dropout"] * dense.units_in * _negative_entropy(rate)
        slope = factors["weight"] * squares * rate / (1 - rate)
        slope += factors["dropout"] * dense.units_in * rate * (1 - rate) * _logit(rate)
        set_gradient(logit, logit.grad + logit.grad.dtype.type(slope))
        if factors["weight"]:
            more = weights.value * weights.value.dtype.type(2 * factors["weight"] / (1 - rate))
            set_gradient(weights, weights.full_grad() + more)
        return value

    def __repr__(self) -> str:
        return f"ConcreteDropout({self.rate:g}, temperature={self._temperature})"


class StandoutDropout(WeightedLayer, RandomLayer):
    """An activation function with dropout that depends on its input; see `fastdrop.standout` [1]_.

    ``y = m * f(a)``, m kept with probability ``sigmoid(alpha * a + beta)``: it stands in the place
    of the activation function f behind a Dense, with whose weights it ties those of its
    probabilities. Outside of training ``y = sigmoid(alpha * a + beta) * f(a)``.

    Parameters
    ----------
    alpha, beta : float, optional
        Finite. At first, where they are learned.
    activation : Elementwise, optional
        ReLU unless given.
    learned : bool, optional
        Whether alpha and beta are parameters, and the gradient goes by way of the probabilities,
        too. The paper's experiments leave both as they are.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Attributes
    ----------
    alpha, beta : float
        As they are now. Setting one holds from the next forward pass on.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    References
    ----------
    .. [1] L. J. Ba, B. Frey, "Adaptive dropout for training deep neural networks", NIPS 2013,
       sections 3 and 4.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> net = nn.Sequential([nn.Dense(4, 8), nn.StandoutDropout(), nn.Dense(8, 2)], rng=0)
    >>> net.forward(numpy.ones((3, 4)), training=True).shape
    (3, 2)
    """

    _sealed = True
    _kept: Any = None

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.0,
        *,
        activation: Elementwise | None = None,
        learned: bool = False,
        rng: RandomSource = None,
    ) -> None:
        RandomLayer.__init__(self, rng)
        activation = ReLU() if activation is None else activation
        if not isinstance(activation, Elementwise):
            raise TypeError(
                f"activation must be an activation function of nn, got {type(activation).__name__}"
            )
        if not isinstance(learned, bool | numpy.bool_):
            raise TypeError(f"learned must be True or False, got {learned!r}")
        self._activation = activation
        self._learned = bool(learned)
        self._numbers = {"alpha": _finite(alpha, "alpha"), "beta": _finite(beta, "beta")}

    @property
    def alpha(self) -> float:
        """float: how much the probability to keep depends on the pre-activation."""
        return self._number("alpha")

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._set_number("alpha", alpha)

    @property
    def beta(self) -> float:
        """float: the logit of the probability to keep at a pre-activation of 0."""
        return self._number("beta")

    @beta.setter
    def beta(self, beta: float) -> None:
        self._set_number("beta", beta)

    @read_only("make a new layer")
    def learned(self) -> bool:
        """bool: whether alpha and beta are parameters."""
        return self._learned

    def _number(self, name: str) -> float:
        if self._made:
            return float(self._made[name].value[0])
        return self._numbers[name]

    def _set_number(self, name: str, value: float) -> None:
        value = _finite(value, name)
        if self._made:
            self._made[name].value[0] = value
        else:
            self._numbers[name] = value

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        if not self._learned:
            return {}
        return {name: numpy.array([value]) for name, value in self._numbers.items()}

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the layer, by name."""
        chosen = {"activation": repr(self._activation), "learned": self._learned}
        return chosen if self._learned else chosen | self._numbers

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the activations with units dropped, or their expectation.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, any shape
            Pre-activations.
        training : bool, optional

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        a = as_floats(x, self.name)
        numbers: dict[str, Any] = {"alpha": self.alpha, "beta": self.beta}
        active = self._activation.forward(a, training)
        if not training:
            return standout(active, a, **numbers, training=False)[0]
        drawn: dict[str, Any] = {"rng": self.stream}
        if self._rows is not None:
            noise = draw_noise(self.stream, "uniform", a.shape, 1.0, False, self._rows)
            drawn = {"mask": standout_mask(noise, a, **numbers)}
        y, mask = standout(active, a, **numbers, **drawn)
        self._kept = active, a.copy(), mask, numbers
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradients of alpha and beta; return the input's, or None if not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        active, a, mask, numbers = self._kept
        grad = fitting_gradient(grad, a.shape, a.dtype, self.name)
        of_active, of_a, of_alpha, of_beta = standout_backward(grad, active, a, mask, **numbers)
        if self._learned:
            for name, value in (("alpha", of_alpha), ("beta", of_beta)):
                set_gradient(self._parameter(name), numpy.array([value], self._dtype()))
        if not input_gradient:
            return None
        given = self._activation.backward(of_active)
        return given + of_a if self._learned else given

    def __repr__(self) -> str:
        return (
            f"StandoutDropout({self.alpha:g}, {self.beta:g}, activation={self._activation!r}, "
            f"learned={self._learned})"
        )


def _logit(rate: float) -> float:
    rate = real_number(rate, "rate")
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), both ends excluded, got {rate}")
    return math.log(rate) - math.log1p(-rate)


def _negative_entropy(rate: float) -> float:
    return rate * math.log(rate) + (1 - rate) * math.log1p(-rate)


def _finite(value: float, name: str) -> float:
    value = real_number(value, name)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value
