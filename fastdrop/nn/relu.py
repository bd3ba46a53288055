"""The rectified linear unit."""

import numpy

from fastdrop.nn.layer import Elementwise

__all__ = ["ReLU"]


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

    _homogeneous = True

    def _apply(self, x, out, scratch):
        numpy.maximum(x, 0, out=out)

    def _derive(self, output, grad, scratch):
        off = scratch("off", output.shape, numpy.bool_)
        numpy.less_equal(output, 0, out=off)
        numpy.copyto(grad, 0, where=off)

    def __repr__(self):
        return "ReLU()"
