"""Operands of a masked product: checked, two-dimensional, every mask said as rows of bits."""

import math
from typing import NamedTuple

import numpy

from fastdrop.arguments import as_array
from fastdrop.mask import Mask, mask_operand, remember_rows, remembered_rows
from fastdrop.types import Array, Shape

__all__ = ["RowMask", "as_rows", "as_weights", "row_mask", "share_of_nonzeros"]

_FLOATS = frozenset(map(numpy.dtype, (numpy.float32, numpy.float64)))


class RowMask(NamedTuple):
    """A mask of a matrix: row i uses mask row ``i // rows_per_mask``.

    Attributes
    ----------
    bits : numpy.ndarray of uint8
        Packed, (mask rows, width) in C order.
    rows_per_mask : int
        At least 1.
    groups : int
        Mask rows.
    width : int
    scale : float
    keep_prob : float or None
        What the share of kept elements is on average, if known.
    """

    bits: Array
    rows_per_mask: int
    groups: int
    width: int
    scale: float
    keep_prob: float | None

    def density(self) -> float:
        """Share of kept elements, in [0, 1]: expected where that is known, else counted."""
        if self.keep_prob is not None:
            return self.keep_prob
        size = self.groups * self.width
        return int(numpy.bitwise_count(self.bits).sum(dtype=numpy.int64)) / size if size else 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the mask as the kernels want it beside a matrix."""
        return (self.groups, self.width)


def as_rows(x: Array, name: str, width: int | None = None) -> Array:
    """An argument as an array of float32 or float64 with at least one axis.

    Raises
    ------
    TypeError
        For another dtype.
    ValueError
        For no axis, or a last axis that is not `width` long.
    """
    x = as_array(x, name)
    if x.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got dtype {x.dtype}")
    if x.ndim == 0 or (width is not None and x.shape[-1] != width):
        expected = "units" if width is None else width
        raise ValueError(f"{name} must have shape (..., {expected}), got {x.shape}")
    return x if x.flags.aligned else numpy.array(x)


def as_weights(w: Array, x: Array) -> Array:
    """The weights: a matrix of the dtype of x that fits x's last axis.

    Raises
    ------
    TypeError
        For another dtype than that of x.
    ValueError
        For another shape than (units_in, units_out).
    """
    w = as_array(w, "w")
    if w.dtype != x.dtype:
        raise TypeError(f"w must have dtype {x.dtype}, that of x, got {w.dtype}")
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        raise ValueError(
            f"w must have shape ({x.shape[-1]}, units_out) for x of shape {x.shape}, got {w.shape}"
        )
    return w


def rows_contiguous(matrix: Array) -> Array:
    """The matrix itself where its last axis is contiguous and rows are apart, else a copy."""
    flags = matrix.flags
    if not flags.aligned:
        return matrix.copy()
    if flags.c_contiguous:
        return matrix
    size = matrix.itemsize
    rows, columns = matrix.strides
    apart = rows >= matrix.shape[1] * size and rows % size == 0
    if (columns == size or matrix.shape[1] <= 1) and (apart or matrix.shape[0] <= 1):
        return matrix
    return matrix.copy()


def share_of_nonzeros(matrix: Array) -> float:
    """Share of the elements of a matrix of floats that are not 0 (-0.0 may count); 0 of none."""
    if matrix.strides[1] == matrix.itemsize:
        matrix = matrix.view(f"i{matrix.itemsize}")  # NumPy counts these ten times as fast
    return numpy.count_nonzero(matrix) / max(matrix.size, 1)


def row_mask(mask: Mask | None, shape: Shape, name: str, of: str) -> RowMask | None:
    """A mask of an array of `shape`, as a `RowMask` of the array's rows (its last axis); or None.

    Masks that neither repeat along all rows nor along groups of them are expanded to one bit per
    element.

    Raises
    ------
    TypeError
        If `mask` is no Mask; `name` is the argument's name.
    ValueError
        If it does not fit an array of `shape`, the argument `of`.
    """
    if mask is None:
        return None
    if not isinstance(mask, Mask):
        raise TypeError(f"{name} must be a fastdrop.Mask or None, got {type(mask).__name__}")
    known: RowMask | None = remembered_rows(mask, shape)
    if known is not None:
        return known
    try:
        bits, own, rows_per_mask = mask_operand(mask, shape, of)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    rows = _as_rows_of(mask, bits, own, rows_per_mask, shape)
    if rows.bits is bits:  # what has been expanded is not kept
        remember_rows(mask, shape, rows)
    return rows


def _as_rows_of(mask: Mask, bits: Array, own: Shape, rows_per_mask: int, shape: Shape) -> RowMask:
    """The same of a mask that fits, of shape `own` as the kernels see it."""
    width = shape[-1]
    scale, keep_prob = mask.scale, mask.keep_prob
    if own[-1] == width:
        if len(own) == 2 and (rows_per_mask > 1 or own[0] == shape[0]):
            return RowMask(bits, rows_per_mask, own[0], width, scale, keep_prob)
        rows = math.prod(shape[:-1])
        if own == shape:
            return RowMask(bits, 1, rows, width, scale, keep_prob)
        if all(extent == 1 for extent in own[:-1]):
            return RowMask(bits, max(rows, 1), 1, width, scale, keep_prob)
    return _expanded(mask, own, rows_per_mask, shape)


def _expanded(mask: Mask, own: Shape, rows_per_mask: int, shape: Shape) -> RowMask:
    kept = mask.to_array().reshape(own)
    if rows_per_mask > 1:
        kept = numpy.repeat(kept, rows_per_mask, axis=0)[: shape[0]]
    bits = numpy.packbits(numpy.broadcast_to(kept, shape), bitorder="little")
    return RowMask(bits, 1, math.prod(shape[:-1]), shape[-1], mask.scale, mask.keep_prob)
