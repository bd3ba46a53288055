"""Products of the active units of matrices: the twins of the kernels.

As in `fastdrop.reference.matmul`, sums run over what is kept, and nothing is multiplied by a mask.

References
----------
.. [3] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
   submatrices", arXiv 1502.02478 (2015).
"""

import numpy

from fastdrop.reference.bits import unpacked
from fastdrop.reference.matmul import kept_elements

__all__ = ["compact_gradient", "compact_matmul", "masked_sums", "small_matmul"]


@numpy.errstate(all="ignore")
def compact_matmul(
    x, bits, rows_per_mask, group, w, scale, bias, bias_scale, out_bits, out_rows_per_mask, out
):
    """Multiply the active units of a matrix by the active part of another one [3]_.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, depth)
        Its last axis is contiguous.
    bits : numpy.ndarray of uint8, or None
        The mask of `x`, element (i, k) at bit ``(i // rows_per_mask) * depth + k``.
    rows_per_mask, out_rows_per_mask : int
        How many consecutive rows share a row of the masks.
    group : int
        How many consecutive rows share a row of both masks: divides either number, or there are no
        more rows than that number.
    w : numpy.ndarray, shape (depth, columns)
        One of its axes is contiguous.
    bias : numpy.ndarray, shape (columns,), or None
    out_bits : numpy.ndarray of uint8, or None
        The mask of `out`, element (i, j) at bit ``(i // out_rows_per_mask) * columns + j``.
    out : numpy.ndarray, shape (rows, columns)
        Becomes ``(x @ w) * scale + bias * bias_scale``, and ``+0.0`` where it is dropped. Its last
        axis is contiguous, and it overlaps nothing.

    Returns
    -------
    int
        The number of multiply-adds.

    Examples
    --------
    >>> x, w = numpy.array([[1.0, numpy.nan], [3.0, numpy.nan]]), numpy.full((2, 3), 10.0)
    >>> units, columns = numpy.array([[0b01], [0b110]], dtype=numpy.uint8)
    >>> out = numpy.empty((2, 3))
    >>> compact_matmul(x, units, 2, 2, w, 2.0, None, 1.0, columns, 2, out)
    4
    >>> out
    array([[ 0., 20., 20.],
           [ 0., 60., 60.]])
    """
    products = 0
    for start, units, columns in _groups(
        group, bits, rows_per_mask, x.shape, out_bits, out_rows_per_mask, out.shape[1]
    ):
        rows = slice(start, start + group)
        result = x[rows, units] @ w[numpy.ix_(units, columns)] * x.dtype.type(scale)
        if bias is not None:
            result += bias[columns] * x.dtype.type(bias_scale)
        out[rows] = 0
        out[rows, columns] = result
        products += result.size * units.size
    return products


@numpy.errstate(all="ignore")
def compact_gradient(x, bits, rows_per_mask, group, grad, out_bits, out_rows_per_mask, scale, out):
    """Multiply the active units of a matrix, transposed, by those of another one [3]_.

    Parameters
    ----------
    x, bits, rows_per_mask, group
        As in `compact_matmul`.
    grad : numpy.ndarray, shape (rows, columns)
        Its last axis is contiguous.
    out_bits, out_rows_per_mask
        The mask of `grad`.
    out : numpy.ndarray, shape (depth, columns)
        Becomes ``x.T @ grad * scale``, of what the masks keep. Its last axis is contiguous, and it
        overlaps nothing.

    Returns
    -------
    int
        The number of multiply-adds.

    Examples
    --------
    >>> x, grad = numpy.array([[1.0, numpy.nan], [3.0, numpy.nan]]), numpy.ones((2, 3))
    >>> units, columns = numpy.array([[0b01], [0b110]], dtype=numpy.uint8)
    >>> out = numpy.empty((2, 3))
    >>> compact_gradient(x, units, 2, 2, grad, columns, 2, 2.0, out)
    4
    >>> out
    array([[0., 8., 8.],
           [0., 0., 0.]])
    """
    out[...] = 0
    products = 0
    for start, units, columns in _groups(
        group, bits, rows_per_mask, x.shape, out_bits, out_rows_per_mask, out.shape[1]
    ):
        rows = slice(start, start + group)
        part = x[rows, units]
        out[numpy.ix_(units, columns)] += part.T @ grad[rows, columns] * x.dtype.type(scale)
        products += part.size * columns.size
    return products


def _groups(group, bits, rows_per_mask, shape, out_bits, out_rows_per_mask, columns):
    """For each group of rows: its first row, its units and its columns, as indices."""
    for start in range(0, shape[0], group):
        units = _row_of(bits, start // rows_per_mask, shape[1], "bits")
        yield start, units, _row_of(out_bits, start // out_rows_per_mask, columns, "out_bits")


def _row_of(bits, row, width, name):
    """Indices of the elements that are kept in one row of a packed mask."""
    if bits is None:
        return numpy.arange(width)
    return numpy.flatnonzero(unpacked(bits, width, row * width, name))


@numpy.errstate(all="ignore")
def masked_sums(x, bits, rows_per_mask, scale, out):
    """Sum the columns of a matrix, of what a mask keeps: the gradient of a bias.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, columns)
        Its last axis is contiguous.
    bits, rows_per_mask
        The mask of `x`, as in `compact_matmul`.
    out : numpy.ndarray, C-contiguous, shape (columns,)
        Becomes the sums times `scale`.

    Examples
    --------
    >>> x, bits = numpy.array([[1.0, numpy.nan], [3.0, 4.0]]), numpy.array([0b1101], numpy.uint8)
    >>> out = numpy.empty(2)
    >>> masked_sums(x, bits, 1, 10.0, out)
    >>> out
    array([40., 40.])
    """
    kept = kept_elements(bits, x.shape, rows_per_mask)
    numpy.multiply(numpy.where(kept, x, 0).sum(axis=0), x.dtype.type(scale), out=out)


def small_matmul(x, w, bits, mask_shape, rows_per_mask, scale, skip_zeros, most, out):
    """Return None: the way around the checks of a small product that the kernels have.

    Where everything is as it should be (two C-contiguous matrices of one dtype, a mask of all rows
    or of each, less than `most` multiply-adds), the compiled module computes ``skip_matmul`` at
    once and returns the result, in `out` if that is an array. Else it returns None as well, and
    the caller finds out what is different.

    Examples
    --------
    >>> x = numpy.ones((1, 2))
    >>> small_matmul(x, x.T, numpy.array([3], numpy.uint8), (1, 2), 1, 1.0, False, 100, None)
    """
    return None
