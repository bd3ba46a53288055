"""SELU units, and the layers of alpha dropout for networks of them."""

from typing import Any

import numpy

from fastdrop.dropouts import alpha_dropout, feature_alpha_dropout
from fastdrop.dropouts.alpha import SELU_ALPHA, SELU_SCALE
from fastdrop.nn.elementwise import Elementwise
from fastdrop.nn.random import FunctionLayer
from fastdrop.nn.types import Rate, Scratch
from fastdrop.stream import RandomSource
from fastdrop.types import Array, Shape

__all__ = ["SELU", "AlphaDropout", "FeatureAlphaDropout"]


class SELU(Elementwise):
    """``1.0507 * x`` where x is positive, ``1.7581 * (exp(x) - 1)`` elsewhere [1]_.

    With weights of mean 0 and variance ``1 / units_in`` and biases of 0, mean 0 and variance 1 of
    the input go through many layers; dropout that keeps them is `AlphaDropout`.

    References
    ----------
    .. [1] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural
       networks", NeurIPS 2017, section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.SELU().forward(numpy.array([[-numpy.inf, -1.0, 0.0, 1.0]])).round(4)
    array([[-1.7581, -1.1113,  0.    ,  1.0507]])
    """

    _sealed = True
    fused_as = "elementwise"
    from_output = True

    def apply(self, x: Array, out: Array, scratch: Scratch) -> None:
        """Write the function of x to out."""
        low = scratch("low", x.shape, x.dtype)
        numpy.minimum(x, 0, out=low)
        numpy.expm1(low, out=low)
        numpy.multiply(low, SELU_SCALE * SELU_ALPHA, out=low)
        numpy.multiply(x, SELU_SCALE, out=out)
        numpy.copyto(out, low, where=out <= 0)

    def multiply_derivative(self, grad: Array, x: Any, y: Array, scratch: Scratch) -> None:
        """Multiply grad by 1.0507 where y is positive, by ``y + 1.7581`` elsewhere."""
        slope = scratch("slope", y.shape, y.dtype)
        numpy.minimum(y, 0, out=slope)
        numpy.add(slope, SELU_SCALE * SELU_ALPHA, out=slope)
        numpy.copyto(slope, SELU_SCALE, where=y > 0)
        numpy.multiply(grad, slope, out=grad)


class AlphaDropout(FunctionLayer):
    """Alpha dropout in training, the identity outside; see `fastdrop.alpha_dropout`.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a unit is dropped, or kept; exactly one of the two. Can be set later.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> nn.AlphaDropout(0.5, rng=0).forward(numpy.zeros((1, 4)), training=True).round(2)
    array([[ 0.78,  0.78, -0.78, -0.78]])
    """

    _sealed = True
    _function = staticmethod(alpha_dropout)

    def __init__(
        self, rate: Rate | None = None, *, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        super().__init__(rate, keep_prob, rng)


class FeatureAlphaDropout(FunctionLayer):
    """Alpha dropout of whole channels (axis 1); see `AlphaDropout`."""

    _sealed = True
    _function = staticmethod(feature_alpha_dropout)

    def __init__(
        self, rate: Rate | None = None, *, keep_prob: float | None = None, rng: RandomSource = None
    ) -> None:
        super().__init__(rate, keep_prob, rng)

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        return {"shared_axes": tuple(range(2, len(shape)))}
