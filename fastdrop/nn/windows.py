"""Masks for some rows of a larger batch, whose other rows are somewhere else: on other machines."""

import math
from typing import Any

import numpy

from fastdrop.arguments import integer, mask_plan
from fastdrop.mask import Mask
from fastdrop.nn.masks import row_and_any_kept
from fastdrop.nn.types import Kind, Rows
from fastdrop.noise import Noise, new_noise
from fastdrop.operands import RowMask
from fastdrop.stream import MaskStream, draw_with
from fastdrop.types import Array, RowsPerMask, Shape

__all__ = ["check_rows", "draw_noise", "draw_rows", "draw_units"]

# Mask rows of the first look at what the rest of a batch keeps; each further look takes twice as
# many.
FIRST_LOOK = 32


def check_rows(rows: Any, batch: int) -> Rows | None:
    """Check a `rows` argument: which rows of which batch `batch` rows are.

    Returns
    -------
    tuple of int, or None
        None where the rows are the whole batch.

    Raises
    ------
    TypeError
        If it is neither None nor a pair of ints.
    ValueError
        If the larger batch has no such rows.
    """
    if rows is None:
        return None
    if not isinstance(rows, tuple | list) or len(rows) != 2:
        raise TypeError(f"rows must be None or a pair (first, total), got {rows!r}")
    first, total = (integer(value, "rows") for value in rows)
    if first < 0 or first + batch > total:
        raise ValueError(
            f"rows must have 0 <= first and first + {batch} <= total for {batch} rows of x, got "
            f"({first}, {total})"
        )
    return None if batch == total else (first, total)


def draw_rows(stream: MaskStream, shape: Shape, rows: Rows, **options: Any) -> Mask:
    """Draw the part of a batch's mask that belongs to some of its rows.

    Parameters
    ----------
    stream : MaskStream
        Advances by one draw, as for the whole batch.
    shape : tuple of int, (batch, ...)
        Of the rows at hand.
    rows : tuple of int
        (first, total): which rows of which batch.
    **options
        Of `MaskStream.draw`: ``keep_prob``, ``rows_per_mask``, ``shared_axes``, ``exact_count``.

    Returns
    -------
    Mask
        Of the rows at hand, with the scale of the batch's mask.
    """
    first, total = rows
    rows_per_mask = options.get("rows_per_mask", 1)
    batch = (total, *shape[1:])
    own = mask_plan(batch, options.get("shared_axes", ()), rows_per_mask).shape
    start, stop, skipped = _groups(first, shape[0], own[0], rows_per_mask)
    mask = stream.draw(batch, window=_window(start, stop, own), **options)
    if not skipped:
        return mask
    kept = numpy.repeat(mask.to_array(), rows_per_mask, axis=0)[skipped : skipped + shape[0]]
    return Mask.from_array(kept, mask.keep_prob).with_scale(mask.scale)


def draw_units(
    stream: MaskStream, shape: Shape, rows: Rows, options: dict[str, Any]
) -> tuple[Array | None, RowMask | None, Array | None]:
    """Draw the part of a batch's mask that belongs to some of its rows, for a fused block.

    Parameters
    ----------
    stream, shape, rows
        As for `draw_rows`; the last axis is that of the units.
    options : dict
        As for `draw_rows`.

    Returns
    -------
    units : numpy.ndarray of uint8 or None
        Packed bits of the kept units, where all rows of the batch share them.
    mask : RowMask or None
        Else the mask of the rows at hand.
    any_kept : numpy.ndarray of uint8 or None
        Packed bits of the units that any row of the whole batch keeps; None: all. The same for all
        parts of a batch.
    """
    batch = (rows[1], *shape[1:])
    own = mask_plan(batch, options["shared_axes"], options["rows_per_mask"]).shape
    number = stream.position
    if own[-1] == shape[-1] and math.prod(own[:-1]) == 1:
        units = stream.draw(batch, **options).bits.copy()
        return units, None, units
    mask, any_kept = row_and_any_kept(draw_rows(stream, shape, rows, **options), shape)
    if any_kept is not None:
        any_kept = _kept_by_batch(stream, number, batch, own, options)
    return None, mask, any_kept


def draw_noise(
    stream: MaskStream, kind: Kind, shape: Shape, scale: float, additive: bool, rows: Rows
) -> Noise:
    """Draw the part of a batch's noise that belongs to some of its rows.

    Parameters
    ----------
    stream, shape, rows
        As for `draw_rows`.
    kind, scale, additive
        As for `fastdrop.noise.new_noise`.

    Returns
    -------
    Noise
    """

    def drawn(key0: int, key1: int, number: int) -> Noise:
        return new_noise((key0, key1), number, kind, shape, scale, additive, *rows)

    return draw_with(stream, drawn)


def _window(start: int, stop: int, own: Shape) -> tuple[slice, ...]:
    """The window of some rows of a mask of shape `own`."""
    return (slice(start, stop), *(slice(0, extent) for extent in own[1:]))


def _groups(
    first: int, count: int, groups: int, rows_per_mask: RowsPerMask
) -> tuple[int, int, int]:
    """Mask rows of some rows of a batch, and how many rows of the first one's group are before."""
    if rows_per_mask == "batch":
        return 0, 1, 0
    if groups == 1 and rows_per_mask == 1:
        return 0, 1, 0  # axis 0 is shared, or the batch is a single row
    if count == 0:
        return 0, 0, 0
    start = first // rows_per_mask
    stop = -(-(first + count) // rows_per_mask)
    return start, stop, first - start * rows_per_mask


def _kept_by_batch(
    stream: MaskStream, number: int, batch: Shape, own: Shape, options: dict[str, Any]
) -> Array | None:
    """Bits of the units that any row of a batch keeps; None if that is all of them.

    Looks at no more of the batch's mask than it takes to find every unit kept.
    """
    kept = numpy.zeros(batch[-1], bool)
    start, step = 0, FIRST_LOOK
    while start < own[0] and not kept.all():
        stop = min(start + step, own[0])
        mask = stream.draw(batch, window=_window(start, stop, own), at=number, **options)
        kept |= mask.to_array().any(axis=tuple(range(len(own) - 1)))
        start, step = stop, 2 * step
    return None if kept.all() else numpy.packbits(kept, bitorder="little")
