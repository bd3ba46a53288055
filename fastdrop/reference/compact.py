"""Products of the active units of matrices: the references of the kernels.

As in `fastdrop.reference.matmul`, sums run over what is kept, and nothing is multiplied by a mask.

References
----------
.. [3] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
   submatrices", arXiv 1502.02478 (2015).
"""

import itertools

import numpy

from fastdrop.reference.bits import unpacked
from fastdrop.reference.dropout import apply_mask
from fastdrop.reference.matmul import kept_elements

__all__ = [
    "all_finite",
    "compact_gradient",
    "compact_matmul",
    "dense_matmul",
    "direct_matmul",
    "every_bit",
    "masked_sums",
    "plain_matmul",
    "sampled_share",
    "second_level_cache",
    "small_matmul",
    "surely_apart",
]


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


def all_finite(x):
    """Whether an array of float32 or float64 holds neither infinity nor NaN.

    Examples
    --------
    >>> all_finite(numpy.array([1.0, 2.0])), all_finite(numpy.array([1.0, numpy.inf]))
    (True, False)
    """
    return bool(numpy.isfinite(x).all())


def surely_apart(results, operands):
    """Whether all arrays lie in one piece and no result shares memory with another array.

    False means that it was not found out in the little time there is.

    Parameters
    ----------
    results, operands : tuple of numpy.ndarray

    Examples
    --------
    >>> x = numpy.zeros(4)
    >>> surely_apart((x[:2],), (x[2:],)), surely_apart((x[:3],), (x[2:],))
    (True, False)
    """
    arrays = (*results, *operands)
    if not all(type(array) is numpy.ndarray and array.flags.forc for array in arrays):
        return False
    pairs = itertools.combinations(results, 2)
    return not any(
        numpy.may_share_memory(*pair) for pair in (*pairs, *itertools.product(results, operands))
    )


def plain_matmul(x, bits, rows_per_mask, w, scale, bias, bias_scale, out):
    """Apply a mask to a matrix and multiply everything.

    Parameters
    ----------
    x, bits, rows_per_mask, w, scale, bias, bias_scale, out
        As for `compact_matmul`; `bits` may be None.

    Returns
    -------
    bool
        Whether the result is that of `skip_matmul`: it holds no infinity and no NaN, which may come
        of a dropped element's zero; or there is no mask.

    Examples
    --------
    >>> x, w, y = numpy.ones((1, 2)), numpy.array([[1.0], [numpy.inf]]), numpy.empty((1, 1))
    >>> plain_matmul(x, numpy.array([1], numpy.uint8), 1, w, 1.0, None, 1.0, y)
    False
    """
    if bits is not None:
        masked = numpy.empty_like(x)
        shape = (max(-(-len(x) // rows_per_mask), 1), x.shape[1])
        apply_mask(x, bits, shape, rows_per_mask, scale, masked)
        x, scale = masked, 1.0
    compact_matmul(x, None, 1, max(len(x), 1), w, scale, bias, bias_scale, None, 1, out)
    return bits is None or all_finite(out)


def dense_matmul(x, transposed, bits, mask_shape, rows_per_mask, scale, w, out):
    """Apply a mask to a matrix and multiply everything by NumPy's BLAS, without a warning.

    Parameters
    ----------
    x, bits, mask_shape, rows_per_mask, scale
        As for `apply_mask`.
    transposed : bool
        Whether the masked matrix is transposed before it is multiplied.
    w, out : numpy.ndarray, matrices

    Returns
    -------
    bool
        Whether the result is that of `skip_matmul`, as `plain_matmul` says it.

    Examples
    --------
    >>> x, w, y = numpy.ones((1, 2)), numpy.array([[1.0], [2.0]]), numpy.empty((1, 1))
    >>> dense_matmul(x, False, numpy.array([2], numpy.uint8), (1, 2), 1, 0.5, w, y), y
    (True, array([[1.]]))
    """
    masked = numpy.empty(x.shape, x.dtype)
    apply_mask(x, bits, mask_shape, rows_per_mask, scale, masked)
    with numpy.errstate(all="ignore"):
        numpy.matmul(masked.T if transposed else masked, w, out=out)
    return all_finite(w if w.size < out.size else out)


def second_level_cache():
    """Bytes of the L2 cache that a core has for itself: the references suppose a common one."""
    return 1 << 20


def every_bit(bits, n):
    """Whether the first `n` packed bits are all set.

    Examples
    --------
    >>> every_bit(numpy.array([7], numpy.uint8), 3), every_bit(numpy.array([7], numpy.uint8), 4)
    (True, False)
    """
    return bool(unpacked(bits, n).all())


def direct_matmul(x, bits, rows_per_mask, w, scale, out):
    """Apply a mask to a matrix and multiply everything.

    The compiled module does not pack `w`, which has to be contiguous.

    Parameters
    ----------
    x, w, out : numpy.ndarray, C-contiguous
    bits, rows_per_mask, scale
        As for `compact_matmul`; there is a mask.

    Returns
    -------
    bool
        Whether the result is that of `skip_matmul`, as `plain_matmul` says it.

    Examples
    --------
    >>> x, w, y = numpy.ones((1, 2)), numpy.array([[1.0], [2.0]]), numpy.empty((1, 1))
    >>> bits = numpy.array([2], numpy.uint8)
    >>> direct_matmul(x, bits, 1, w, 0.5, y), y
    (True, array([[1.]]))
    """
    return plain_matmul(x, bits, rows_per_mask, w, scale, None, 1.0, out)


def sampled_share(x, counted, shares):
    """Share of the elements of a matrix that are not zero, in steps of 1 / `shares`; 0 of none.

    Looks at about `counted` elements: of a larger matrix, at rows at equal distances.

    Examples
    --------
    >>> sampled_share(numpy.array([[1.0, 0.0, 0.0], [9.0, 9.0, 9.0]]), 3, 4)
    0.25
    """
    if x.size == 0:
        return 0.0
    every = min(max(x.size // counted, 1), len(x))
    found = x[::every]
    return round(numpy.count_nonzero(found) / found.size * shares) / shares


def small_matmul(
    x, w, bits, mask_shape, rows_per_mask, scale, keep_prob, skip_zeros, most, counted, shares,
    cheapest, out,
):  # fmt: skip
    """Return None: the way around the checks of a smaller product that the kernels have.

    Where everything is as it should be (two C-contiguous matrices of one dtype, a mask of all rows
    or of each whose `keep_prob` is known, less than `most` multiply-adds), the compiled module
    takes the method at once that `cheapest` says, where zeros are skipped of the share that
    ``sampled_share`` finds, and returns the result, in `out` if that is an array. Else it returns
    None as well, and the caller finds out what is different.

    Examples
    --------
    >>> x, bits = numpy.ones((1, 2)), numpy.array([3], numpy.uint8)
    >>> small_matmul(x, x.T, bits, (1, 2), 1, 1.0, 1.0, False, 100, 9, 9, max, None)
    """
    return None
