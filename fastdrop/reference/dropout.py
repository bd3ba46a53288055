"""Applying masks: the references of the dropout kernels.

References
----------
.. [2] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
   JMLR 15 (2014), sections 4 and 10.
"""

import ctypes
import math
from typing import Any

import numpy

from fastdrop.reference.bfloat16 import bfloat16_of, float32_of
from fastdrop.reference.bits import Array, Shape, unpacked
from fastdrop.reference.stream import draw_bernoulli

__all__ = [
    "apply_mask",
    "apply_mask_at",
    "dropout_at",
    "dropout_forward",
    "dropout_fresh",
    "rectify",
]

# The numbers of the element types where memory is given by its address.
DTYPES = (numpy.float16, numpy.float32, numpy.float64, numpy.uint16)


def dropout_forward(
    x: Array, key0: int, key1: int, draw: int, threshold: int, scale: float, bits: Array, out: Array
) -> None:
    """Draw a Bernoulli mask of the shape of `x` into `bits` and apply it as `apply_mask` does.

    Examples
    --------
    >>> x, bits = numpy.arange(1.0, 6.0), numpy.empty(1, dtype=numpy.uint8)
    >>> dropout_forward(x, 0xB0F478BE, 0xDB2CD7E7, 0, 2**63, 2.0, bits, x)
    >>> x
    array([ 2.,  4.,  0.,  0., 10.])
    """
    draw_bernoulli(key0, key1, draw, threshold, x.shape, (0,) * x.ndim, x.shape, bits)
    apply_mask(x, bits, x.shape, 1, scale, out)


def dropout_fresh(
    key0: int, key1: int, draw: int, x: Array, threshold: int, scale: float, out: Array | None
) -> tuple[Array, Array]:
    """Return the result of `dropout_forward`, in `out` or a new array, and the bits."""
    out = numpy.empty(x.shape, x.dtype) if out is None else out
    bits = numpy.empty((x.size + 7) // 8, numpy.uint8)
    dropout_forward(x, key0, key1, draw, threshold, scale, bits, out)
    return out, bits


def apply_mask(
    x: Array, bits: Array, mask_shape: Shape, rows_per_mask: int, scale: float, out: Array
) -> None:
    """Write ``x * scale`` where the mask keeps and ``+0.0`` where it drops [2]_.

    Dropped values are replaced, not multiplied: NaN and inf become zero as well.

    Parameters
    ----------
    x : numpy.ndarray of float16, float32, float64 or uint16, any strides
        The values; uint16 holds the bits of bfloat16.
    mask_shape : tuple of int
        As many axes as `x`, each as long as that of `x` or 1; with ``rows_per_mask > 1`` axis 0
        has ``ceil(x.shape[0] / rows_per_mask)`` rows.
    rows_per_mask : int
        How many consecutive rows of `x` share a row of the mask.
    scale : float
        Rounded to the dtype of `x` before the product, which is computed in that dtype; for
        float16 and bfloat16 in float32, where it is exact, then rounded to nearest, ties to even.
        (Where it is below 2^-126 and the scale below 2^-9, float32 may round it, too.)
    out : numpy.ndarray, shape and dtype of `x`, any strides
        Receives the result; may be `x`.

    Examples
    --------
    >>> x = numpy.array([[1.0, numpy.nan], [3.0, 4.0], [5.0, 6.0]])
    >>> apply_mask(x, numpy.array([0b1001], dtype=numpy.uint8), (2, 2), 2, 2.0, x)
    >>> x
    array([[ 2.,  0.],
           [ 6.,  0.],
           [ 0., 12.]])
    """
    dropped = ~unpacked(bits, math.prod(mask_shape)).reshape(mask_shape)
    if rows_per_mask > 1:
        dropped = numpy.repeat(dropped, rows_per_mask, axis=0)[: x.shape[0]]
    # A dropped value may overflow or be a signalling NaN: its product is thrown away.
    with numpy.errstate(all="ignore"):
        if x.dtype == numpy.uint16:
            numpy.copyto(out, bfloat16_of(float32_of(x) * float32_of(bfloat16_of(scale))))
        else:
            working_type = numpy.promote_types(x.dtype, numpy.float32)
            factor = working_type.type(x.dtype.type(scale))
            numpy.multiply(x, factor, out=out, dtype=working_type, casting="same_kind")
    numpy.copyto(out, 0, where=dropped)


def dropout_at(
    x: int,
    dtype: int,
    n: int,
    key0: int,
    key1: int,
    draw: int,
    threshold: int,
    scale: float,
    bits: int,
    out: int,
) -> None:
    """`dropout_forward` on memory that belongs to somebody else, such as a tensor.

    Parameters
    ----------
    x, bits, out : int
        Addresses of n elements, of ``(n + 7) // 8`` bytes, and of n elements; `out` may be `x`.
    dtype : int
        0, 1, 2: float16, float32, float64; 3: bfloat16.

    Examples
    --------
    >>> x, bits = numpy.arange(1.0, 6.0), numpy.empty(1, dtype=numpy.uint8)
    >>> place = x.ctypes.data
    >>> dropout_at(place, 2, 5, 0xB0F478BE, 0xDB2CD7E7, 0, 2**63, 2.0, bits.ctypes.data, place)
    >>> x
    array([ 2.,  4.,  0.,  0., 10.])
    """
    packed = _memory(bits, (n + 7) // 8, numpy.uint8)
    values, result = (_memory(place, n, DTYPES[dtype]) for place in (x, out))
    dropout_forward(values, key0, key1, draw, threshold, scale, packed, result)


def apply_mask_at(x: int, dtype: int, n: int, bits: int, scale: float, out: int) -> None:
    """`apply_mask` on memory that belongs to somebody else, each of n elements with its own bit.

    Examples
    --------
    >>> x, bits = numpy.arange(1.0, 6.0), numpy.array([0b11001], dtype=numpy.uint8)
    >>> apply_mask_at(x.ctypes.data, 2, 5, bits.ctypes.data, 2.0, x.ctypes.data)
    >>> x
    array([ 2.,  0.,  0.,  8., 10.])
    """
    packed = _memory(bits, (n + 7) // 8, numpy.uint8)
    values, result = (_memory(place, n, DTYPES[dtype]) for place in (x, out))
    apply_mask(values, packed, (n,), 1, scale, result)


def _memory(address: int, n: int, dtype: Any) -> Array:
    """An array of n elements over memory that is there already."""
    if not n:
        return numpy.empty(0, dtype)
    size = n * numpy.dtype(dtype).itemsize
    memory: Any = (ctypes.c_char * size).from_address(address)
    return numpy.frombuffer(memory, dtype)


def rectify(x: Array, bits: Array | None, scale: float, gate: Array) -> int:
    """ReLU, mask and scale in place: `apply_mask` where `x` is not <= 0, too.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, C-contiguous
    bits : numpy.ndarray of uint8 or None
        One for each element; None keeps all.
    scale : float
        As for `apply_mask`.
    gate : numpy.ndarray of uint8, shape (ceil(x.size / 8),)
        Receives a bit for each element: whether it passed. NaN passes.

    Returns
    -------
    int
        How many passed.

    Examples
    --------
    >>> x, gate = numpy.array([[1.0, -2.0, 3.0, 4.0]]), numpy.empty(1, numpy.uint8)
    >>> rectify(x, numpy.array([0b0111], numpy.uint8), 2.0, gate)
    2
    >>> x, gate
    (array([[2., 0., 6., 0.]]), array([5], dtype=uint8))
    """
    with numpy.errstate(invalid="ignore"):  # of signalling NaN
        passing = ~(x <= 0).ravel()
    if bits is not None:
        passing &= unpacked(bits, x.size)
    gate[...] = numpy.packbits(passing, bitorder="little")
    apply_mask(x, gate, x.shape, 1, scale, x)
    return int(numpy.count_nonzero(passing))
