"""Masks that are drawn where a block is, window by window."""

import dataclasses

import dask.array as da
import numpy

from fastdrop.arguments import mask_plan, real_number
from fastdrop.interop.dask.arrays import Grid
from fastdrop.stream import MaskStream, as_stream, take_position

__all__ = ["LazyMask", "checked_mask", "mask", "row_pieces"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LazyMask:
    """A mask that is drawn when it is needed, on any worker, in any part: some 500 bytes.

    `mask` and `dropout` make them. `MaskStream.draw` with the same arguments draws the same bits.

    Attributes
    ----------
    array_shape : tuple of int
        Shape of the array that the mask is for.
    shape : tuple of int
        The mask's own: 1 on shared axes, one row per group of rows.
    rows_per_mask : int or "batch"
    draw : int
        Number of the draw.

    Probability to keep and scale are ``keep_prob`` and ``scale``, as of a `fastdrop.Mask`.

    Examples
    --------
    >>> import fastdrop.dask
    >>> mask = fastdrop.dask.mask((10**6, 10**6), rate=0.5, rng=0)
    >>> mask
    LazyMask(shape=(1000000, 1000000), rows_per_mask=1, keep_prob=0.5, scale=2.0, draw=0)
    >>> mask.compute(window=(slice(999_999, None), slice(0, 8))).to_array(dtype=int)
    array([[0, 0, 0, 1, 1, 1, 1, 0]])
    """

    array_shape: tuple
    shape: tuple
    rows_per_mask: int | str
    keep_prob: float
    scale: float
    draw: int
    _shared_axes: tuple
    _exact_count: bool
    _stream: MaskStream

    def compute(self, window=None):
        """Draw the mask, or a part of it.

        Parameters
        ----------
        window : tuple of slice, optional
            As of `MaskStream.draw`: one slice for each axis of the mask's own shape.

        Returns
        -------
        Mask
        """
        drawn = self._stream.draw(
            self.array_shape,
            keep_prob=self.keep_prob,
            shared_axes=self._shared_axes,
            rows_per_mask=self.rows_per_mask,
            exact_count=self._exact_count,
            window=window,
            at=self.draw,
        )
        return drawn if drawn.scale == self.scale else drawn.with_scale(self.scale)

    def of_block(self, starts, stops):
        """Draw what applies to a block of the array.

        Where rows share, the block has to begin with a group, or lie in one; see `row_pieces`.

        Parameters
        ----------
        starts, stops : sequence of int
            The block's bounds along every axis of the array.

        Returns
        -------
        Mask
            Of the block's shape, or broadcasting, or with rows per mask.
        """
        window = []
        for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            if axis in self._shared_axes or (axis == 0 and self.rows_per_mask == "batch"):
                start, stop = 0, 1
            elif axis == 0 and self.rows_per_mask != 1:
                start, stop = start // self.rows_per_mask, -(-stop // self.rows_per_mask)
            window.append(slice(start, stop))
        return self.compute(tuple(window))

    def to_array(self, chunks="auto", dtype=bool):
        """Return the mask unpacked, lazily.

        Parameters
        ----------
        chunks : optional
            Of the mask's own shape, as dask's functions take them.
        dtype : optional

        Returns
        -------
        dask.array.Array
            Of the mask's own shape, 1 where kept, 0 where dropped.
        """
        dtype = numpy.dtype(dtype)
        chunks = da.core.normalize_chunks(chunks, self.shape, dtype=dtype)
        if not self.shape:
            return da.from_array(self.compute().to_array(dtype))
        return da.map_blocks(
            _unpacked,
            chunks=chunks,
            dtype=dtype,
            meta=numpy.empty((0,) * len(self.shape), dtype),
            token="fastdrop-mask",
            mask=self,
            grid=Grid(chunks),
            unpacked=dtype,
        )

    def with_scale(self, s):
        """Return the same mask with the factor `s` on kept values.

        Raises
        ------
        TypeError
            If `s` is not a real number.
        """
        return dataclasses.replace(self, scale=real_number(s, "s"))

    def __dask_tokenize__(self):
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return type(self).__name__, {**fields, "_stream": self._stream.state}

    def __repr__(self):
        return (
            f"LazyMask(shape={self.shape}, rows_per_mask={self.rows_per_mask!r}, "
            f"keep_prob={self.keep_prob}, scale={self.scale}, draw={self.draw})"
        )


def mask(
    shape,
    rate=None,
    *,
    keep_prob=None,
    rng=None,
    shared_axes=(),
    rows_per_mask=1,
    exact_count=False,
    at=None,
):
    """Describe a mask of a large array; its bits are drawn where they are used.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array that the mask is for.
    rate : float
        Probability that an element is dropped, in [0, 1]. Give `rate` or `keep_prob`, not both.
    keep_prob : float
        Probability that an element is kept, ``1 - rate``.
    rng : optional
        As of `fastdrop.dropout`. The position is taken now: the mask stays the same, however
        often and wherever it is drawn.
    shared_axes, rows_per_mask, exact_count, at
        As of `MaskStream.draw`.

    Returns
    -------
    LazyMask

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import fastdrop, fastdrop.dask
    >>> stream = fastdrop.MaskStream(0)
    >>> mask = fastdrop.dask.mask((4, 8), rate=0.5, rng=stream)
    >>> mask.to_array(chunks=(2, 3), dtype=int).compute()[0]
    array([1, 1, 0, 0, 1, 0, 0, 0])
    >>> mask.compute() == fastdrop.MaskStream(0).draw((4, 8), rate=0.5)
    True
    """
    plan = mask_plan(shape, shared_axes, rows_per_mask)
    extents = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    extents = tuple(map(int, extents))  # mask_plan has checked them
    arguments = {
        "shared_axes": tuple(sorted(plan.shared - ({0} if rows_per_mask == "batch" else set()))),
        "rows_per_mask": plan.rows_per_mask,
        "exact_count": bool(exact_count),
    }
    # An empty window: checks all arguments, and knows the scale, before a position is taken.
    checked = MaskStream(0).draw(
        extents,
        rate=rate,
        keep_prob=keep_prob,
        window=(slice(0, 0),) * len(extents),
        at=0 if at is None else at,
        **arguments,
    )
    stream = as_stream(rng)
    number = take_position(stream) if at is None else int(at)
    return LazyMask(
        extents,
        plan.shape,
        plan.rows_per_mask,
        checked.keep_prob,
        checked.scale,
        number,
        arguments["shared_axes"],
        arguments["exact_count"],
        MaskStream.from_state({**stream.state, "position": 0}),  # the given one goes on
    )


def checked_mask(mask, shape, name, of):
    """A mask for an array of this shape.

    Raises
    ------
    TypeError
        If it is no `LazyMask`.
    ValueError
        If it was made for another shape.
    """
    if not isinstance(mask, LazyMask):
        raise TypeError(
            f"{name} must be a fastdrop.dask.LazyMask, as fastdrop.dask.mask and "
            f"fastdrop.dask.dropout return it, got {type(mask).__name__}"
        )
    if mask.array_shape != shape:
        raise ValueError(
            f"{name} must be for the shape of {of}, {shape}, it is for {mask.array_shape}"
        )
    return mask


def row_pieces(start, stop, masks):
    """Cut rows so that every piece begins with a group of each mask, or lies in one.

    Parameters
    ----------
    start, stop : int
        Rows of the array, of one block.
    masks : sequence of LazyMask

    Yields
    ------
    int, int
        Start and stop of a piece: one piece where all groups begin with the block, two for a
        single mask's group that the block's start cuts.
    """
    groups = [mask.rows_per_mask for mask in masks if mask.rows_per_mask not in (1, "batch")]
    while start < stop:
        ends = [start - start % rows + rows for rows in groups if start % rows]
        end = min([stop, *ends])
        yield start, end
        start = end


def _unpacked(*, mask, grid, unpacked, block_id):
    starts, stops = grid.bounds(block_id)
    return mask.compute(tuple(map(slice, starts, stops))).to_array(unpacked)
