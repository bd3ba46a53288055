"""bfloat16, which NumPy does not have: the upper half of a float32, held as uint16."""

import numpy
from numpy.typing import ArrayLike

from fastdrop.reference.bits import Array

__all__ = ["bfloat16_of", "float32_of"]


def float32_of(bits: ArrayLike) -> Array:
    """Return bfloat16 values, given by their bits, as float32; exact.

    Examples
    --------
    >>> float32_of(numpy.array([0x3F80, 0xC040], numpy.uint16))
    array([ 1., -3.], dtype=float32)
    """
    return (numpy.asarray(bits, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)


def bfloat16_of(values: ArrayLike) -> Array:
    """Return the bits of the nearest bfloat16 of float32 or float64 values; of two, the even one.

    A NaN keeps its sign and the upper bits of its payload and becomes quiet.

    Examples
    --------
    >>> [hex(bits) for bits in bfloat16_of([1.0, 1.00390625, 1.01171875, numpy.nan])]
    ['0x3f80', '0x3f80', '0x3f82', '0x7fc0']
    """
    values = numpy.asarray(values)
    with numpy.errstate(all="ignore"):
        single = values.astype(numpy.float32)
        bits = single.view(numpy.uint32)
        if values.dtype != numpy.float32:
            # Two roundings, to float32 and on, see a tie where none is. Rounding to odd first does
            # not: what lies between two float32 becomes the one whose last bit is 1.
            wide = values.astype(numpy.float64)
            inexact = (single != wide) & numpy.isfinite(single)
            away = numpy.abs(single.astype(numpy.float64)) > numpy.abs(wide)
            bits = numpy.where(inexact, (bits - (inexact & away)) | 1, bits).astype(numpy.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return numpy.where(numpy.isnan(single), bits >> 16 | 0x40, rounded).astype(numpy.uint16)
