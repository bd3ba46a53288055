"""The logistic function."""

import numpy

from fastdrop.nn.layer import Elementwise

__all__ = ["Sigmoid"]


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

    def _apply(self, x, out, scratch):
        numpy.multiply(x, 0.5, out=out)
        numpy.tanh(out, out=out)
        numpy.multiply(out, 0.5, out=out)
        numpy.add(out, 0.5, out=out)

    def _derive(self, output, grad, scratch):
        slope = scratch("slope", output.shape, output.dtype)
        numpy.subtract(1, output, out=slope)
        numpy.multiply(slope, output, out=slope)
        numpy.multiply(grad, slope, out=grad)

    def __repr__(self):
        return "Sigmoid()"
