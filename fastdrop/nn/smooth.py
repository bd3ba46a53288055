"""Activation functions without a corner, GELU and SiLU, and Softmax."""

import functools
import math

import numpy

from fastdrop.arguments import is_one_of
from fastdrop.nn.activations import Elementwise
from fastdrop.nn.layer import Layer, as_floats, fitting_gradient

__all__ = ["GELU", "SiLU", "Softmax"]

ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# Chebyshev coefficients of erfc(x) * exp(x**2) that each dtype needs.
DEGREES = {"f": 13, "d": 29}


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

    def apply(self, x, out, scratch):
        """Write ``x * sigmoid(x)`` to out."""
        _logistic(x, out)
        with numpy.errstate(invalid="ignore"):  # of -inf * 0
            numpy.multiply(out, x, out=out)

    def multiply_derivative(self, grad, x, y, scratch):
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

    def __init__(self, approximate="none"):
        super().__init__()
        if not is_one_of(approximate, ("none", "tanh")):
            raise ValueError(f'approximate must be "none" or "tanh", got {approximate!r}')
        self._approximate = approximate

    def settings(self):
        """Return the approximation, by name."""
        return {"approximate": self._approximate}

    def apply(self, x, out, scratch):
        """Write ``x * Phi(x)`` to out."""
        with numpy.errstate(invalid="ignore", over="ignore"):
            numpy.multiply(x, self._gate(x)[0], out=out)

    def multiply_derivative(self, grad, x, y, scratch):
        """Multiply grad by ``Phi(x) + x * Phi'(x)``."""
        with numpy.errstate(invalid="ignore", over="ignore"):
            gate, slope = self._gate(x, derivative=True)
            numpy.multiply(grad, gate + x * slope, out=grad)

    def _gate(self, x, derivative=False):
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

    def __repr__(self):
        return f"GELU({self._approximate!r})"


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` over the last axis.

    For the last layer of a network that tells classes apart, leave it out in training and use
    `SoftmaxCrossEntropy`, which takes the scores themselves.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.Softmax().forward(numpy.array([[0.0, 0.0], [1000.0, 0.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """

    _sealed = True
    _output = None

    def forward(self, x, training=False):
        """Return the probabilities.

        Parameters
        ----------
        x : array_like of float16, float32 or float64, shape (..., classes)
        training : bool, optional
            Keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape and dtype of `x`; of float16, float32
        """
        x = as_floats(x, self.name)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(
                f"{self.name}: x must have a last axis of classes, got shape {x.shape}"
            )
        with numpy.errstate(invalid="ignore", under="ignore"):
            y = numpy.exp(x - numpy.maximum.reduce(x, axis=-1, keepdims=True))
            y /= numpy.add.reduce(y, axis=-1, keepdims=True)
        if training:
            self._output = y.copy()
        return y

    def backward(self, grad, input_gradient=True):
        """Return the gradient with respect to the input, or None if it is not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        y = self._output
        if y is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, y.shape, y.dtype, self.name)
        if not input_gradient:
            return None
        given = grad - numpy.einsum("...i,...i->...", grad, y)[..., None]
        given *= y
        return given

    def __repr__(self):
        return "Softmax()"


def _logistic(x, out):
    """The logistic function, by the hyperbolic tangent, which overflows nowhere."""
    numpy.multiply(x, 0.5, out=out)
    numpy.tanh(out, out=out)
    numpy.multiply(out, 0.5, out=out)
    numpy.add(out, 0.5, out=out)


def _distribution(x):
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
    return numpy.where(x > 0, 1 - tail, tail)


@functools.cache
def _scaled_erfc(char):
    """The smallest argument of the series, and its coefficients."""
    smallest = 2 / (2 + 26.0)  # where erfc ends in float64
    n = DEGREES[char]
    angles = math.pi * (numpy.arange(n) + 0.5) / n
    t = (numpy.cos(angles) * (1 - smallest) + (1 + smallest)) / 2
    f = numpy.array([math.erfc(2 / v - 2) * math.exp((2 / v - 2) ** 2) for v in t.tolist()])
    c = numpy.array([2 / n * (f * numpy.cos(k * angles)).sum() for k in range(n)])
    c[0] /= 2
    return numpy.dtype(char).type(smallest), c.astype(char)
