"""Products of rows that have a mask of the weights each, or a few rows together."""

import math
from collections.abc import Iterator

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import contiguous
from fastdrop.mask import Mask
from fastdrop.operands import RowMask
from fastdrop.types import Array

__all__ = ["gradients_of_groups", "products_of_groups", "working"]


def working(x: Array) -> Array:
    """x in the dtype that is computed in: float32 for float16."""
    return x.astype(numpy.float32) if x.dtype.char == "e" else x


def _groups(x: Array, w: Array, mask: Mask) -> Iterator[tuple[slice, RowMask]]:
    """Rows of x that share a mask of w, and the mask: slices of axis 0, row masks."""
    every = mask.rows_per_mask if isinstance(mask.rows_per_mask, int) else max(x.shape[0], 1)
    for group in range(mask.shape[0]):
        bits = _part(mask.bits, group * w.size, w.size)
        rows = slice(group * every, min((group + 1) * every, x.shape[0]))
        yield rows, RowMask(bits, 1, w.shape[0], w.shape[1], mask.scale, mask.keep_prob)


def _matrix(x: Array) -> Array:
    """x with its leading axes joined; a view, where it is contiguous."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _part(bits: Array, first: int, count: int) -> Array:
    """`count` packed bits from bit `first` on, packed."""
    begin, skipped = divmod(first, 8)
    if skipped == 0:
        return bits[begin : begin + -(-count // 8)]
    some = numpy.unpackbits(bits[begin:], count=skipped + count, bitorder="little")
    return numpy.packbits(some[skipped:], bitorder="little")


def products_of_groups(x: Array, w: Array, mask: Mask, bias: Array | None) -> Array:
    """The product of each group of rows and its weights, plus a bias.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, ..., units_in)
    w : numpy.ndarray, dtype of `x`, shape (units_in, units_out)
    mask : Mask, shape (groups, units_in, units_out)
        With its rows per mask.
    bias : numpy.ndarray, C-contiguous, shape (units_out,), or None
    """
    w = contiguous(w, w.dtype)
    y = numpy.empty((*x.shape[:-1], w.shape[1]), x.dtype)
    for rows, kept in _groups(x, w, mask):
        product = kernels.Product(_matrix(x[rows]), w, _matrix(y[rows]), mask_b=kept, bias=bias)
        kernels.matmul(product)
    return y


def gradients_of_groups(
    grad_y: Array, x: Array, w: Array, mask: Mask, input_gradient: bool
) -> tuple[Array | None, Array, Array]:
    """The gradients of x (None, if it is not asked for), w and the bias, of these products."""
    w = contiguous(w, w.dtype)
    grad_x = numpy.empty(x.shape, x.dtype) if input_gradient else None
    grad_w = numpy.zeros(w.shape, w.dtype)
    own = numpy.empty_like(grad_w)
    for rows, kept in _groups(x, w, mask):
        inputs, grad = _matrix(x[rows]), _matrix(grad_y[rows])
        if grad_x is not None:
            part = _matrix(grad_x[rows])
            kernels.matmul(kernels.Product(grad, w.T, part, mask_b=kept, columns_of_b=True))
        kernels.matmul(kernels.Product(inputs.T, grad, own, mask_c=kept, sum_rows=True))
        with numpy.errstate(all="ignore"):
            grad_w += own
    return grad_x, grad_w, grad_y.sum(axis=tuple(range(grad_y.ndim - 1)))
