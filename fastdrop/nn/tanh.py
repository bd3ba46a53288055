"""The hyperbolic tangent."""

import numpy

from fastdrop.nn.layer import Elementwise

__all__ = ["Tanh"]


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

    def _apply(self, x, out, scratch):
        numpy.tanh(x, out=out)

    def _derive(self, output, grad, scratch):
        slope = scratch("slope", output.shape, output.dtype)
        numpy.multiply(output, output, out=slope)
        numpy.subtract(1, slope, out=slope)
        numpy.multiply(grad, slope, out=grad)

    def __repr__(self):
        return "Tanh()"
