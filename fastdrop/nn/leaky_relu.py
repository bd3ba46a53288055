"""The leaky rectified linear unit."""

import math

import numpy

from fastdrop.arguments import real_number
from fastdrop.nn.layer import Elementwise

__all__ = ["LeakyReLU"]


class LeakyReLU(Elementwise):
    """``x`` where it is positive, ``negative_slope * x`` elsewhere [1]_.

    Parameters
    ----------
    negative_slope : float, optional
        At least 0 and finite.

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

    _homogeneous = True

    def __init__(self, negative_slope=0.01):
        super().__init__()
        slope = real_number(negative_slope, "negative_slope")
        if not 0 <= slope < math.inf:
            raise ValueError(f"negative_slope must be at least 0 and finite, got {slope}")
        self.negative_slope = slope

    def _apply(self, x, out, scratch):
        slope = self.negative_slope
        lowered = scratch("lowered", x.shape, x.dtype)
        numpy.multiply(x, slope, out=lowered)
        (numpy.maximum if slope <= 1 else numpy.minimum)(x, lowered, out=out)

    def _derive(self, output, grad, scratch):
        # The slope is not negative: the output has the sign of the input, or is 0 with it.
        low = scratch("off", output.shape, numpy.bool_)
        numpy.less_equal(output, 0, out=low)
        numpy.multiply(grad, self.negative_slope, out=grad, where=low)

    def __repr__(self):
        return f"LeakyReLU({self.negative_slope})"
