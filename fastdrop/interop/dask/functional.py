"""Dropout of dask arrays, forward and backward."""

import dask.array as da
import numpy

import fastdrop.functional
from fastdrop.arguments import is_one_of, real_number
from fastdrop.interop.dask.arrays import Grid, float_array
from fastdrop.interop.dask.masks import checked_mask, mask, row_pieces

__all__ = ["apply_mask", "check_block", "dropout", "dropout_backward"]


def dropout(
    x,
    rate=None,
    *,
    keep_prob=None,
    rng=None,
    shared_axes=(),
    rows_per_mask=1,
    exact_count=False,
    training=True,
    scale_at="train",
):
    """Drop elements of a dask array at random and scale the kept ones, lazily.

    The result has the bits of `fastdrop.dropout` of the whole array, for every chunking, scheduler
    and number of workers.

    Parameters
    ----------
    x : dask.array.Array of float16, float32 or float64, any shape and chunks
        With known chunk sizes.
    rate : float
        Probability that an element is dropped, in [0, 1]. Give `rate` or `keep_prob`, not both.
    keep_prob : float
        Probability that an element is kept, ``1 - rate``.
    rng : optional
        As of `fastdrop.dropout`. One position of the stream is taken now, when the graph is built;
        computing the result twice gives the same twice.
    shared_axes, rows_per_mask
        As of `fastdrop.dropout`. Groups of rows may lie across the blocks' borders.
    exact_count : bool, optional
        As of `fastdrop.dropout`. Where blocks cut the rows, each draws the whole rows' numbers to
        find its part: chunks that are whole along the rows take less work.
    training, scale_at
        As of `fastdrop.dropout`.

    Returns
    -------
    y : dask.array.Array, shape, dtype and chunks of `x`
    mask : LazyMask or None
        For `dropout_backward`, `apply_mask` and `masked_matmul`. No bits are kept: they are drawn
        again where they are needed.

    Raises
    ------
    TypeError
        If `x` is no dask array of NumPy blocks, of another dtype, or not exactly one of rate and
        keep_prob is given.
    ValueError
        If chunk sizes of `x` are unknown, or an argument is out of its range.

    Examples
    --------
    >>> import dask.array, fastdrop.dask
    >>> x = dask.array.ones((2, 6), chunks=(2, 3))
    >>> y, mask = fastdrop.dask.dropout(x, rate=0.5, rng=0)
    >>> y.compute()
    array([[2., 2., 0., 0., 2., 0.],
           [0., 0., 0., 0., 2., 2.]])
    >>> fastdrop.dask.dropout_backward(x, mask).compute()
    array([[2., 2., 0., 0., 2., 0.],
           [0., 0., 0., 0., 2., 2.]])
    """
    x = float_array(x, "x")
    if not is_one_of(scale_at, ("train", "test")):
        raise ValueError(f'scale_at must be "train" or "test", got {scale_at!r}')
    made = mask(
        x.shape,
        rate,
        keep_prob=keep_prob,
        rng=rng if training else 0,  # outside training no position is taken
        shared_axes=shared_axes,
        rows_per_mask=rows_per_mask,
        exact_count=exact_count,
    )
    if training:
        if scale_at == "test":
            made = made.with_scale(1.0 if made.scale else 0.0)
        return apply_mask(x, made), made
    if scale_at == "train":
        return x, None
    share = 1.0 / made.scale if made.scale else 0.0  # exact: of counts
    return dropout_backward(x, None, scale=share if exact_count else made.keep_prob), None


def dropout_backward(grad_y, mask, *, scale=None):
    """Return the gradient of `dropout` with respect to its input, lazily.

    Parameters
    ----------
    grad_y : dask.array.Array of float16, float32 or float64
        In any chunks, those of the forward pass or others.
    mask : LazyMask or None
        The forward pass's mask. None (nothing was dropped) only multiplies by `scale`.
    scale : float, optional
        The factor on kept values; ``mask.scale`` unless given, 1 without a mask.

    Returns
    -------
    dask.array.Array, shape, dtype and chunks of `grad_y`

    Raises
    ------
    TypeError
        If `grad_y` is no dask array of such a dtype, or `mask` no `LazyMask`.
    ValueError
        If chunk sizes are unknown, or the mask was made for another shape.

    Examples
    --------
    >>> import dask.array, fastdrop.dask
    >>> grad = dask.array.ones(8, chunks=3)
    >>> fastdrop.dask.dropout_backward(grad, fastdrop.dask.mask(8, rate=0.5, rng=0)).compute()
    array([2., 2., 0., 0., 2., 0., 0., 0.])
    """
    grad_y = float_array(grad_y, "grad_y")
    if mask is not None:
        return _apply(grad_y, mask, scale, "grad_y")
    scale = 1.0 if scale is None else real_number(scale, "scale")
    return da.map_blocks(
        fastdrop.functional.dropout_backward,
        grad_y,
        None,
        dtype=grad_y.dtype,
        meta=grad_y._meta,
        token="fastdrop-scale",
        scale=scale,
    )


def apply_mask(x, mask, *, scale=None):
    """Apply a mask lazily: kept elements times its scale, dropped ones +0.0.

    Parameters
    ----------
    x : dask.array.Array of float16, float32 or float64, any chunks
    mask : LazyMask
        Made for the shape of `x`.
    scale : float, optional
        The factor on kept values; ``mask.scale`` unless given.

    Returns
    -------
    dask.array.Array, shape, dtype and chunks of `x`

    Raises
    ------
    TypeError
        If `x` is no dask array of such a dtype, or `mask` no `LazyMask`.
    ValueError
        If chunk sizes are unknown, or the mask was made for another shape.

    Examples
    --------
    >>> import dask.array, fastdrop.dask
    >>> mask = fastdrop.dask.mask((2, 4), rate=0.5, rng=0, rows_per_mask="batch")
    >>> fastdrop.dask.apply_mask(dask.array.ones((2, 4), chunks=(1, 4)), mask).compute()
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.]])
    """
    return _apply(float_array(x, "x"), mask, scale, "x")


def _apply(x, mask, scale, name):
    mask = checked_mask(mask, x.shape, "mask", name)
    if scale is not None:
        mask = mask.with_scale(real_number(scale, "scale"))
    return da.map_blocks(
        _masked_block,
        x,
        dtype=x.dtype,
        meta=x._meta,
        token="fastdrop-dropout",
        mask=mask,
        grid=Grid(x.chunks),
    )


def _masked_block(block, *, mask, grid, block_id):
    """One block's part of a mask, drawn and applied."""
    starts, stops = grid.bounds(block_id)
    block = check_block(block, starts, stops)
    if not block.ndim:
        return fastdrop.functional.apply_mask(block, mask.of_block((), ()))
    y = numpy.empty_like(block)
    for first, last in row_pieces(starts[0], stops[0], (mask,)):
        rows = slice(first - starts[0], last - starts[0])
        part = mask.of_block((first, *starts[1:]), (last, *stops[1:]))
        fastdrop.functional.apply_mask(block[rows], part, out=y[rows])
    return y


def check_block(block, starts, stops):
    """A block as an array of the shape that its chunk sizes say.

    Raises
    ------
    ValueError
        If it has another shape, as a function given to `map_blocks` may make it.
    """
    block = numpy.asarray(block)
    shape = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    if block.shape != shape:
        raise ValueError(
            f"the block at {starts} must have the shape of its chunk, {shape}, got {block.shape}"
        )
    return block
