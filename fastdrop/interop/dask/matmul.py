"""Masked products of dask arrays, over chunks of rows."""

import dask.array as da
import numpy

import fastdrop.matmul
from fastdrop.interop.dask.arrays import Grid, float_array, single_block, whole_rows
from fastdrop.interop.dask.functional import check_block
from fastdrop.interop.dask.masks import checked_mask, row_pieces

__all__ = ["masked_matmul"]


def masked_matmul(x, w, *, mask_in=None, mask_out=None, bias=None, skip_zeros=False, method="auto"):
    """Multiply rows of a dask array by weights, without dropped elements, lazily.

    Parameters
    ----------
    x : dask.array.Array of float32 or float64, shape (..., units_in), at least 2 axes
        In chunks of rows. Where the last axis is cut, it is joined, and rows are cut instead.
    w : array_like or dask.array.Array, dtype of `x`, shape (units_in, units_out)
        In memory as a whole on every worker.
    mask_in : LazyMask, optional
        Made for the shape of `x`.
    mask_out : LazyMask, optional
        Made for the shape of the result.
    bias : array_like or dask.array.Array, dtype of `x`, shape (units_out,), optional
    skip_zeros, method
        As of `fastdrop.masked_matmul`.

    Returns
    -------
    dask.array.Array, shape (..., units_out)
        In the chunks of rows of `x`. The masks are those of the whole array bit for bit; sums may
        differ by rounding from one chunking to another, as the product of a block depends on its
        number of rows.

    Raises
    ------
    TypeError
        For dtypes other than float32 and float64, or different ones; masks that are no `LazyMask`.
    ValueError
        For shapes or masks that do not fit, unknown chunk sizes, or an unknown method; when it is
        computed, if "compact" is forced on masks that are not shared by the same groups of rows.

    Examples
    --------
    >>> import dask.array, numpy, fastdrop.dask
    >>> x = dask.array.ones((4, 3), chunks=(2, 3))
    >>> mask = fastdrop.dask.mask((4, 4), rate=0.5, rng=0, rows_per_mask="batch")
    >>> fastdrop.dask.masked_matmul(x, numpy.ones((3, 4)), mask_out=mask).compute()
    array([[6., 6., 0., 0.],
           [6., 6., 0., 0.],
           [6., 6., 0., 0.],
           [6., 6., 0., 0.]])
    """
    x = float_array(x, "x")
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 axes, got {x.ndim}")
    w = single_block(w, "w")
    bias = None if bias is None else single_block(bias, "bias")
    _check_early(x, w, bias, method)
    shape = (*x.shape[:-1], w.shape[1])
    if mask_in is not None:
        mask_in = checked_mask(mask_in, x.shape, "mask_in", "x")
    if mask_out is not None:
        mask_out = checked_mask(mask_out, shape, "mask_out", "the result")
    x = whole_rows(x)
    return da.map_blocks(
        _product,
        x,
        w,
        *([] if bias is None else [bias]),
        chunks=(*x.chunks[:-1], (w.shape[1],)),
        dtype=x.dtype,
        meta=numpy.empty((0,) * x.ndim, x.dtype),
        token="fastdrop-masked-matmul",
        mask_in=mask_in,
        mask_out=mask_out,
        grid=Grid(x.chunks),
        options={"skip_zeros": bool(skip_zeros), "method": method},
    )


def _check_early(x, w, bias, method):
    """Multiply no rows: `fastdrop.masked_matmul` says what is wrong with dtypes and shapes."""
    rows = numpy.empty((0, x.shape[-1]), x.dtype)
    weights = numpy.empty(w.shape, w.dtype)  # nothing of it is read
    biases = None if bias is None else numpy.empty(bias.shape, bias.dtype)
    fastdrop.matmul.masked_matmul(rows, weights, bias=biases, method=method)


def _product(x, w, bias=None, *, mask_in, mask_out, grid, options, block_id):
    """The product of one block of rows."""
    starts, stops = grid.bounds((*block_id[:-1], 0))
    x = check_block(x, starts, stops)
    result = numpy.empty((*x.shape[:-1], w.shape[1]), x.dtype)
    masks = [mask for mask in (mask_in, mask_out) if mask is not None]
    for first, last in row_pieces(starts[0], stops[0], masks):
        rows = slice(first - starts[0], last - starts[0])
        begin, end = (first, *starts[1:]), (last, *stops[1:])
        given = {}
        if mask_in is not None:
            given["mask_in"] = mask_in.of_block(begin, end)
        if mask_out is not None:
            given["mask_out"] = mask_out.of_block((*begin[:-1], 0), (*end[:-1], w.shape[1]))
        fastdrop.matmul.masked_matmul(x[rows], w, bias=bias, out=result[rows], **given, **options)
    return result
