"""No activation function at all."""

import numpy

from fastdrop.nn.layer import Elementwise

__all__ = ["Identity"]


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

    _homogeneous = True

    def _apply(self, x, out, scratch):
        if out is not x:
            numpy.copyto(out, x)

    def _derive(self, output, grad, scratch):
        pass

    def __repr__(self):
        return "Identity()"
