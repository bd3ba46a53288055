"""The layer of concrete dropout, which learns its rate."""

import math
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import real_number
from fastdrop.dropouts import concrete_dropout, concrete_dropout_backward
from fastdrop.nn.dense import Dense, set_gradient
from fastdrop.nn.layer import as_floats, fitting_gradient
from fastdrop.nn.random import RandomLayer
from fastdrop.nn.weighted import WeightedLayer
from fastdrop.nn.windows import draw_noise
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["ConcreteDropout"]

# The ends of the rates that are floats in (0, 1).
SMALLEST, LARGEST = math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)


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
        As it is now, in (0, 1) however large the logit is. Setting it sets the logit.

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
        return _rate_of(logit)

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


def _logit(rate: float) -> float:
    rate = real_number(rate, "rate")
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), both ends excluded, got {rate}")
    return math.log(rate) - math.log1p(-rate)


def _rate_of(logit: float) -> float:
    """The sigmoid of a logit, within the rates that `concrete_dropout` takes."""
    power = math.exp(-abs(logit))  # never overflows
    rate = 1 / (1 + power) if logit >= 0 else power / (1 + power)
    return min(max(rate, SMALLEST), LARGEST)


def _negative_entropy(rate: float) -> float:
    return rate * math.log(rate) + (1 - rate) * math.log1p(-rate)
