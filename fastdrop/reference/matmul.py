"""Masked matrix products: the references of the kernels, and what the public functions mean.

Nothing here multiplies by a mask. A sum runs over the elements that are kept, so that a dropped
one, be it NaN, does not take part, nor does what it would have been multiplied by. Infinities and
NaN that do take part give what they give, without warnings, as in the compiled kernels. Arguments
that recur:

row_bits, column_bits : numpy.ndarray of uint8 or None
    The packed bits of the active rows and columns of a matrix; None: all of them.
row_offset, column_offset : int
    The bit at which the first row's or column's stands.
scale, bias_scale : float
    Rounded to the arrays' dtype before they are multiplied by.

References
----------
.. [3] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
   submatrices", arXiv 1502.02478 (2015).
"""

import math

import numpy

from fastdrop.reference.bits import unpacked

__all__ = [
    "gather",
    "masked_matmul",
    "masked_matmul_backward",
    "scatter",
    "skip_matmul",
]


# --- The kernels -------------------------------------------------------------------------------


def gather(x, row_bits, row_offset, column_bits, column_offset, out):
    """Copy the active rows and columns of a matrix to a smaller one [3]_.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, columns)
        Its last axis is contiguous.
    out : numpy.ndarray, C-contiguous, shape (active rows, active columns)

    Examples
    --------
    >>> x, out = numpy.arange(6.0).reshape(2, 3), numpy.empty((1, 2))
    >>> rows, columns = numpy.array([[0b10], [0b1010]], dtype=numpy.uint8)
    >>> gather(x, rows, 0, columns, 1, out)
    >>> out
    array([[3., 5.]])
    """
    out[...] = x[_active(x.shape, row_bits, row_offset, column_bits, column_offset)]


@numpy.errstate(all="ignore")
def scatter(
    x, row_bits, row_offset, column_bits, column_offset, scale, bias, bias_scale, accumulate, out
):
    """Put a small matrix back in the active rows and columns of a large one: `gather`'s reverse.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, C-contiguous, shape (active rows, active columns)
    bias : numpy.ndarray, shape (columns,), or None
        One number for every column of `out`, of which the active ones are used.
    accumulate : bool
        False: `out` becomes ``x * scale + bias * bias_scale`` where active and ``+0.0``
        elsewhere. True: ``x * scale`` is added where active, and the rest stays; no bias then.
    out : numpy.ndarray, shape (rows, columns)
        Its last axis is contiguous.

    Examples
    --------
    >>> out, columns = numpy.ones((2, 3)), numpy.array([0b101], dtype=numpy.uint8)
    >>> scatter(numpy.array([[3.0, 5.0]]), columns, 1, columns, 0, 2.0, None, 1.0, False, out)
    >>> out
    array([[ 0.,  0.,  0.],
           [ 6.,  0., 10.]])
    """
    if accumulate and bias is not None:
        raise ValueError(f"bias must be None where accumulate is true, got shape {bias.shape}")
    active = _active(out.shape, row_bits, row_offset, column_bits, column_offset)
    result = x * x.dtype.type(scale)
    if accumulate:
        out[active] += result
        return
    if bias is not None:
        result += bias[active[1]] * x.dtype.type(bias_scale)
    out[...] = 0
    out[active] = result


@numpy.errstate(all="ignore")  # the compiled kernels say nothing, either
def skip_matmul(
    x,
    transposed,
    bits,
    rows_per_mask,
    skip_zeros,
    w,
    scale,
    bias,
    bias_scale,
    out_bits,
    out_rows_per_mask,
    out,
    w_bits=None,
    w_rows_per_mask=1,
):
    """Multiply a matrix by another one and leave out what is dropped.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, depth)
        One of its axes is contiguous: the last, or the first where `transposed`.
    transposed : bool
        False: `bits` is the mask of `x`, element (i, k) at bit
        ``(i // rows_per_mask) * depth + k``. True: `x` is the transpose of a matrix ``a``, and
        `bits` the mask of ``a``: element (i, k) at bit ``(k // rows_per_mask) * rows + i``.
    bits : numpy.ndarray of uint8, or None
        None keeps everything.
    rows_per_mask : int
        How many consecutive rows of `x` (of ``a``) share a row of its mask; as many as there are
        where all do.
    skip_zeros : bool
        Also leave out elements of `x` that are 0, which makes a difference where their partner in
        `w` is infinite or NaN.
    w : numpy.ndarray, shape (depth, columns)
        One of its axes is contiguous.
    bias : numpy.ndarray, shape (columns,), or None
    out_bits : numpy.ndarray of uint8, or None
        The mask of `out`, element (i, j) at bit ``(i // out_rows_per_mask) * columns + j``.
    out_rows_per_mask : int
    out : numpy.ndarray, shape (rows, columns)
        Becomes ``(x @ w) * scale + bias * bias_scale``, and ``+0.0`` where it is dropped. It does
        not overlap the others.
    w_bits : numpy.ndarray of uint8, or None
        The mask of `w`, whose rows are contiguous then: element (k, j) counts as ``+0.0`` where bit
        ``(k // w_rows_per_mask) * columns + j`` is 0.
    w_rows_per_mask : int

    Returns
    -------
    int
        How many elements of `x` took part.

    Examples
    --------
    >>> x, w = numpy.array([[1.0, numpy.nan], [0.0, 3.0]]), numpy.eye(2)
    >>> kept, out = numpy.array([0b1101], dtype=numpy.uint8), numpy.empty((2, 2))
    >>> skip_matmul(x, False, kept, 1, True, w, 2.0, None, 1.0, None, 1, out)
    2
    >>> out
    array([[2., 0.],
           [0., 6.]])
    """
    if transposed:
        stored = kept_elements(bits, x.shape[::-1], rows_per_mask).T
    else:
        stored = kept_elements(bits, x.shape, rows_per_mask)
    if skip_zeros:
        stored = stored & (x != 0)
    w = numpy.where(kept_elements(w_bits, w.shape, w_rows_per_mask, "w_bits"), w, 0)
    result = _sums(x, stored, w) * x.dtype.type(scale)
    if bias is not None:
        result += bias * x.dtype.type(bias_scale)
    out[...] = numpy.where(
        kept_elements(out_bits, out.shape, out_rows_per_mask, "out_bits"), result, 0
    )
    return int(stored.sum())


def _active(shape, row_bits, row_offset, column_bits, column_offset):
    """The index of the active rows and columns of a matrix."""
    rows, columns = (numpy.arange(extent) for extent in shape)
    if row_bits is not None:
        rows = rows[unpacked(row_bits, shape[0], row_offset, "row_bits")]
    if column_bits is not None:
        columns = columns[unpacked(column_bits, shape[1], column_offset, "column_bits")]
    return numpy.ix_(rows, columns)


def kept_elements(bits, shape, rows_per_mask, name="bits"):
    """Which elements of a matrix a packed mask keeps, rows that share one written out."""
    if bits is None:
        return numpy.ones(shape, dtype=bool)
    mask_shape = (-(-shape[0] // rows_per_mask), shape[1])
    mask = unpacked(bits, math.prod(mask_shape), name=name).reshape(mask_shape)
    return mask[numpy.arange(shape[0]) // rows_per_mask]


def _sums(x, stored, w):
    """Return ``x @ w``, each row's sums running over its stored elements alone."""
    result = numpy.zeros((x.shape[0], w.shape[1]), dtype=x.dtype)
    for row, elements, total in zip(x, stored, result, strict=True):
        numpy.matmul(row[elements], w[elements], out=total)
    return result


# --- The public functions ----------------------------------------------------------------------


@numpy.errstate(all="ignore")
def masked_matmul(
    x,
    w,
    *,
    mask_in=None,
    mask_out=None,
    bias=None,
    skip_zeros=False,
    method="auto",
    out=None,
    dtype=None,
):
    """Say what `fastdrop.masked_matmul` computes: ``s_out m_out ∘ ((s_in m_in ∘ x) @ w + bias)``.

    Row by row, the sums run over what `mask_in` keeps. The arguments are the public function's;
    `method` changes nothing here, and neither does `skip_zeros` where `w` is finite.

    Parameters
    ----------
    dtype : dtype, optional
        In which everything is computed, and the result's: float64 shows how far rounding is from
        the truth. The dtype of `x` if not given.

    Returns
    -------
    numpy.ndarray, shape (..., units_out)

    Examples
    --------
    >>> import fastdrop
    >>> mask = fastdrop.Mask.from_array([[True, False]], keep_prob=0.5)
    >>> x = numpy.array([[1.0, numpy.nan], [3.0, 4.0]])
    >>> masked_matmul(x, numpy.eye(2), mask_in=mask, bias=numpy.array([0.0, 1.0]))
    array([[2., 1.],
           [6., 1.]])
    """
    dtype = numpy.dtype(x.dtype if dtype is None else dtype)
    result_shape = (*x.shape[:-1], w.shape[1])
    kept_in, scale_in = _written_out(mask_in, x.shape)
    kept_out, scale_out = _written_out(mask_out, result_shape)
    stored = kept_in & (x != 0) if skip_zeros else kept_in
    sums = _sums(_scaled(_matrix(x), scale_in, dtype), _matrix(stored), w.astype(dtype))
    if bias is not None:
        sums += bias.astype(dtype)
    sums = numpy.where(_matrix(kept_out), _scaled(sums, scale_out, dtype), dtype.type(0))
    result = sums.reshape(result_shape)
    if out is None:
        return result
    out[...] = result
    return out


@numpy.errstate(all="ignore")
def masked_matmul_backward(
    grad_y, x, w, *, mask_in=None, mask_out=None, skip_zeros=False, method="auto", dtype=None
):
    """Say what `fastdrop.masked_matmul_backward` computes.

    With ``g = s_out m_out ∘ grad_y`` and ``a = s_in m_in ∘ x``, the gradients are
    ``s_in m_in ∘ (g @ w.T)``, ``a.T @ g`` and the sum of the rows of ``g``; each sum runs over
    what the masks keep. The arguments are those of the public function and of `masked_matmul`.

    Returns
    -------
    grad_x : numpy.ndarray, shape of `x`
    grad_w : numpy.ndarray, shape of `w`
    grad_bias : numpy.ndarray, shape (units_out,)

    Examples
    --------
    >>> x, w = numpy.array([[1.0, 2.0]]), numpy.array([[3.0], [4.0]])
    >>> grad_x, grad_w, grad_bias = masked_matmul_backward(numpy.array([[10.0]]), x, w)
    >>> grad_x.tolist(), grad_w.tolist(), grad_bias.tolist()
    ([[30.0, 40.0]], [[10.0], [20.0]], [10.0])
    """
    dtype = numpy.dtype(x.dtype if dtype is None else dtype)
    kept_in, scale_in = _written_out(mask_in, x.shape)
    kept_out, scale_out = _written_out(mask_out, grad_y.shape)
    stored_in = kept_in & (x != 0) if skip_zeros else kept_in
    stored_out = kept_out & (grad_y != 0) if skip_zeros else kept_out
    kept_in, stored_in, stored_out = map(_matrix, (kept_in, stored_in, stored_out))
    a = _scaled(_matrix(x), scale_in, dtype)
    g = _scaled(_matrix(grad_y), scale_out, dtype)

    grad_x = _scaled(_sums(g, stored_out, w.astype(dtype).T), scale_in, dtype)
    grad_x = numpy.where(kept_in, grad_x, dtype.type(0)).reshape(x.shape)
    grad_w = numpy.zeros(w.shape, dtype)
    for unit, samples in enumerate(stored_in.T):
        products = a[samples, unit, numpy.newaxis] * g[samples]
        grad_w[unit] = numpy.where(stored_out[samples], products, 0).sum(axis=0)
    grad_bias = numpy.where(stored_out, g, dtype.type(0)).sum(axis=0)
    return grad_x, grad_w, grad_bias


def _written_out(mask, shape):
    """Return which elements of an array a mask keeps, and the mask's scale, 1 without a mask."""
    if mask is None:
        return numpy.ones(shape, dtype=bool), 1.0
    kept = mask.to_array()
    if isinstance(mask.rows_per_mask, int) and mask.rows_per_mask > 1:
        kept = kept[numpy.arange(shape[0]) // min(mask.rows_per_mask, max(shape[0], 1))]
    return numpy.broadcast_to(kept, shape), mask.scale


def _matrix(array):
    """An array with its leading axes joined into one."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _scaled(array, scale, dtype):
    """An array times a scale, both in a dtype."""
    return array.astype(dtype) * dtype.type(scale)
