"""Arrays that begin where a line of the cache does.

What `numpy.empty` returns begins 16 bytes behind one, so that every vector of the kernels that is
as long as a line lies on two of them and counts twice. Weights, what optimisers remember of them,
and work arrays are made here.
"""

import math
from collections.abc import Callable

import numpy
from numpy.typing import DTypeLike

from fastdrop.types import Array, Shape

__all__ = ["aligned_empty", "aligned_zeros"]

LINE = 64


def aligned_empty(shape: Shape, dtype: DTypeLike) -> Array:
    """Return an array like ``numpy.empty(shape, dtype)`` whose first element begins a line.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Examples
    --------
    >>> aligned_empty((2, 3), numpy.float32).ctypes.data % 64
    0
    """
    return _aligned(numpy.empty, shape, dtype)


def aligned_zeros(shape: Shape, dtype: DTypeLike) -> Array:
    """Return an array like ``numpy.zeros(shape, dtype)`` whose first element begins a line.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    """
    return _aligned(numpy.zeros, shape, dtype)


def _aligned(make: Callable[..., Array], shape: Shape, dtype: DTypeLike) -> Array:
    dtype = numpy.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    raw = make(nbytes + LINE, numpy.uint8)
    start = -raw.__array_interface__["data"][0] % LINE
    return raw[start : start + nbytes].view(dtype).reshape(shape)
