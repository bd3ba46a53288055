"""Activation functions."""

import functools
import math
from typing import Any, Literal

import numpy

from fastdrop.arguments import is_one_of, real_number
from fastdrop.nn.elementwise import Elementwise
from fastdrop.nn.types import Scratch
from fastdrop.types import Array

__all__ = ["GELU", "Identity", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Tanh"]

ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# Chebyshev coefficients of erfc(x) * exp(x**2) that each dtype needs.
DEGREES = {"f": 13, "d": 29}


class ReLU(Elementwise):
    """``max(x, 0)`` [1]_.

    NaN stays NaN, so that a loss can tell; the derivative at 0 is 0. The products behind a ReLU
    leave out the zeros it makes where that is faster.

    References
    ----------
    .. [1] V. Nair, G. Hinton, "Rectified linear units improve restricted Boltzmann machines",
       ICML 2010.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.ReLU().forward(numpy.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    _sealed = True
    fused_as = "relu"
    from_output = homogeneous = True

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write ``max(x, 0)`` to out."""
        numpy.maximum(x, 0, out=out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Set grad to 0 where y is not positive."""
        off = scratch("off", y.shape, numpy.bool_)
        numpy.less_equal(y, 0, out=off)
        numpy.copyto(grad, 0, where=off)


class LeakyReLU(Elementwise):
    """``x`` where it is positive, ``negative_slope * x`` elsewhere [1]_.

    Parameters
    ----------
    negative_slope : float, optional
        At least 0 and finite. May be set later.

    References
    ----------
    .. [1] A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network
       acoustic models", ICML 2013, section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.LeakyReLU(0.5).forward(numpy.array([[-1.0, 2.0]]))
    array([[-0.5,  2. ]])
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = homogeneous = True

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    @property
    def negative_slope(self) -> float:
        """float: the factor on negative values."""
        return self._slope

    @negative_slope.setter
    def negative_slope(self, slope: float) -> None:
        slope = real_number(slope, "negative_slope")
        if not 0 <= slope < math.inf:
            raise ValueError(f"negative_slope must be at least 0 and finite, got {slope}")
        self._slope = slope

    def settings(self) -> dict[str, Any]:
        """Return the slope, by name."""
        return {"negative_slope": self._slope}

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write x or the slope times x to out."""
        slope = self._slope
        lowered = scratch("lowered", x.shape, x.dtype)
        numpy.multiply(x, slope, out=lowered)
        (numpy.maximum if slope <= 1 else numpy.minimum)(x, lowered, out=out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by the slope where y is not positive."""
        # The slope is not negative: the output has the sign of the input, or is 0 with it.
        low = scratch("off", y.shape, numpy.bool_)
        numpy.less_equal(y, 0, out=low)
        numpy.multiply(grad, self._slope, out=grad, where=low)

    def as_applied(self) -> "LeakyReLU":
        """Return a layer with the slope of now, which another one set later does not change."""
        return LeakyReLU(self._slope)

    def __repr__(self) -> str:
        return f"LeakyReLU({self._slope})"


class Tanh(Elementwise):
    """``tanh(x)``; its derivative is ``1 - tanh(x)**2``.

    Centred at 0, unlike the logistic function, which keeps gradients balanced [1]_.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient backprop", in: Neural networks:
       tricks of the trade, Springer (1998), section 4.4.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Tanh()
    >>> layer.forward(numpy.zeros((1, 2)), training=True)
    array([[0., 0.]])
    >>> layer.backward(numpy.ones((1, 2)))
    array([[1., 1.]])
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = True

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write ``tanh(x)`` to out."""
        numpy.tanh(x, out=out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by ``1 - y**2``."""
        slope = scratch("slope", y.shape, y.dtype)
        numpy.multiply(y, y, out=slope)
        numpy.subtract(1, slope, out=slope)
        numpy.multiply(grad, slope, out=grad)


class Sigmoid(Elementwise):
    """``1 / (1 + exp(-x))``; its derivative is ``y * (1 - y)``.

    Computed as ``0.5 + 0.5 * tanh(x / 2)``, which overflows nowhere. For the last layer of a
    network that tells classes apart, leave it out and use `SigmoidCrossEntropy`, which takes the
    scores themselves.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.Sigmoid().forward(numpy.array([[-1000.0, 0.0, 1000.0]]))
    array([[0. , 0.5, 1. ]])
    >>> nn.Sequential([nn.Dense(2, 1), nn.Sigmoid()], rng=0).forward([[0, 0]])
    array([[0.5]], dtype=float32)
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = True

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write the logistic function of x to out."""
        _logistic(x, out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by ``y * (1 - y)``."""
        slope = scratch("slope", y.shape, y.dtype)
        numpy.subtract(1, y, out=slope)
        numpy.multiply(slope, y, out=slope)
        numpy.multiply(grad, slope, out=grad)


class Identity(Elementwise):
    """``x`` itself, copied: a place holder where an activation function may stand.

    A `Sequential` leaves it out of the computation.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Identity()
    >>> x = numpy.array([[-1.0, 2.0]])
    >>> y = layer.forward(x, training=True)
    >>> y
    array([[-1.,  2.]])
    >>> y is x
    False
    >>> layer.backward(numpy.ones((1, 2)))
    array([[1., 1.]])
    """

    _sealed = True
    fused_as = "identity"
    from_output = homogeneous = True

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Copy x to out."""
        if out is not x:
            numpy.copyto(out, x)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Leave grad as it is."""


class SiLU(Elementwise):
    """``x * sigmoid(x)`` [1]_, also known as swish.

    References
    ----------
    .. [1] S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units for neural network
       function approximation in reinforcement learning", Neural Networks 107 (2018), section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.SiLU().forward(numpy.array([[-1.0, 0.0, 1.0]])).round(4)
    array([[-0.2689,  0.    ,  0.7311]])
    """

    _sealed = True
    fused_as = "elementwise"

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write ``x * sigmoid(x)`` to out."""
        _logistic(x, out)
        with numpy.errstate(invalid="ignore"):  # of -inf * 0
            numpy.multiply(out, x, out=out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by ``s + y * (1 - s)``, s the logistic function of x."""
        gate = scratch("slope", x.shape, x.dtype)
        rest = scratch("rest", x.shape, x.dtype)
        _logistic(x, gate)
        numpy.subtract(1, gate, out=rest)
        with numpy.errstate(invalid="ignore"):
            numpy.multiply(rest, y, out=rest)
        numpy.add(gate, rest, out=gate)
        numpy.multiply(grad, gate, out=grad)


class GELU(Elementwise):
    """``x * Phi(x)``, Phi the distribution function of standard normal numbers [1]_.

    Parameters
    ----------
    approximate : "none" or "tanh", optional
        "tanh": ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``, which differs by
        at most 5e-4, and is faster.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", arXiv 1606.08415 (2016),
       section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> x = numpy.array([[-1.0, 0.0, 1.0]])
    >>> nn.GELU().forward(x).round(4)
    array([[-0.1587,  0.    ,  0.8413]])
    >>> nn.GELU(approximate="tanh").forward(x).round(4)
    array([[-0.1588,  0.    ,  0.8412]])
    """

    _sealed = True
    fused_as = "elementwise"

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        if not is_one_of(approximate, ("none", "tanh")):
            raise ValueError(f'approximate must be "none" or "tanh", got {approximate!r}')
        self._approximate = approximate

    def settings(self) -> dict[str, Any]:
        """Return the approximation, by name."""
        return {"approximate": self._approximate}

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write ``x * Phi(x)`` to out."""
        with numpy.errstate(invalid="ignore", over="ignore"):
            numpy.multiply(x, self._gate(x)[0], out=out)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by ``Phi(x) + x * Phi'(x)``."""
        with numpy.errstate(invalid="ignore", over="ignore"):
            gate, slope = self._gate(x, derivative=True)
            numpy.multiply(grad, gate + x * slope, out=grad)

    def _gate(self, x: Array, derivative: bool = False) -> tuple[Array, Any]:
        """Phi, or what stands for it, and its derivative if it is wanted."""
        if self._approximate == "none":
            gate = _distribution(x)
            slope = numpy.exp(-0.5 * x * x) * x.dtype.type(1 / math.sqrt(2 * math.pi))
            return gate, slope if derivative else None
        inner = numpy.tanh(x * (ROOT_TWO_OVER_PI * (1 + CUBIC * x * x)))
        gate = 0.5 + 0.5 * inner
        if not derivative:
            return gate, None
        steep = ROOT_TWO_OVER_PI * (1 + 3 * CUBIC * x * x)
        rest = 1 - inner * inner
        return gate, numpy.where(rest > 0, 0.5 * rest * steep, 0)

    def __repr__(self) -> str:
        return f"GELU({self._approximate!r})"


def _logistic(x: Array, out: Array) -> None:
    """The logistic function, by the hyperbolic tangent, which overflows nowhere."""
    numpy.multiply(x, 0.5, out=out)
    numpy.tanh(out, out=out)
    numpy.multiply(out, 0.5, out=out)
    numpy.add(out, 0.5, out=out)


def _distribution(x: Array) -> Array:
    """Phi(x) of an array, as accurate as its dtype: NumPy has no error function.

    ``erfc(z) * exp(z**2)`` is a smooth function of ``2 / (2 + z)`` from 0 to 1, of which a
    Chebyshev series needs few terms.
    """
    z = numpy.abs(x) * x.dtype.type(math.sqrt(0.5))
    smallest, coefficients = _scaled_erfc(x.dtype.char)
    t = 2 / (2 + numpy.minimum(z, 2 / smallest - 2))
    s = (2 * t - (1 + smallest)) / (1 - smallest)
    doubled, last, before = 2 * s, numpy.zeros_like(s), numpy.zeros_like(s)
    for c in coefficients[:0:-1]:
        last, before = doubled * last - before + c, last
    tail = 0.5 * numpy.exp(-z * z) * (s * last - before + coefficients[0])
    phi: Array = numpy.where(x > 0, 1 - tail, tail)
    return phi


@functools.cache
def _scaled_erfc(char: str) -> tuple[Any, Array]:
    """The smallest argument of the series, and its coefficients."""
    smallest = 2 / (2 + 26.0)  # where erfc ends in float64
    n = DEGREES[char]
    angles = math.pi * (numpy.arange(n) + 0.5) / n
    t = (numpy.cos(angles) * (1 - smallest) + (1 + smallest)) / 2
    f = numpy.array([math.erfc(2 / v - 2) * math.exp((2 / v - 2) ** 2) for v in t.tolist()])
    c = numpy.array([2 / n * (f * numpy.cos(k * angles)).sum() for k in range(n)])
    c[0] /= 2
    return numpy.dtype(char).type(smallest), c.astype(char)
