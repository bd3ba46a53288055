"""Packed masks of matrices, as fused blocks need them: per element, per unit, compact."""

import numpy

from fastdrop._backend import kernels
from fastdrop.mask import Mask
from fastdrop.operands import RowMask, row_mask
from fastdrop.types import Array, Shape

__all__ = [
    "any_kept_units",
    "bit_count",
    "compress",
    "expand",
    "per_element",
    "row_and_any_kept",
]


def per_element(mask: RowMask, rows: int) -> Array:
    """Bits of a `RowMask`, one for each element of a matrix of `rows` rows, packed."""
    repeats = mask.rows_per_mask
    if repeats == 1:
        return mask.bits
    width = mask.width
    if width % 8 == 0:
        lines = mask.bits.reshape(mask.groups, width // 8)
        return numpy.repeat(lines, repeats, axis=0)[:rows].reshape(-1)
    lines = _unpacked(mask)
    return numpy.packbits(numpy.repeat(lines, repeats, axis=0)[:rows], bitorder="little")


def any_kept_units(mask: RowMask) -> Array | None:
    """Bits of the units that any row of a `RowMask` keeps; None if that is all of them."""
    if mask.width % 8 == 0 and mask.groups > 0:
        lines = mask.bits.reshape(mask.groups, mask.width // 8)
        any_kept = numpy.bitwise_or.reduce(lines, axis=0)
    else:
        any_kept = numpy.packbits(_unpacked(mask).any(axis=0), bitorder="little")
    return None if bit_count(any_kept) == mask.width else any_kept


def row_and_any_kept(mask: Mask, shape: Shape) -> tuple[RowMask | None, Array | None]:
    """A mask as a `RowMask` of an array of a shape, and its `any_kept_units`."""
    rows = row_mask(mask, shape, "mask", "x")
    return rows, None if rows is None else any_kept_units(rows)


def bit_count(units: Array) -> int:
    """Number of ones in packed bits."""
    return int.from_bytes(units.tobytes(), "little").bit_count()


def _unpacked(mask: RowMask) -> Array:
    flat = numpy.unpackbits(mask.bits, count=mask.groups * mask.width, bitorder="little")
    return flat.reshape(mask.groups, mask.width)


def expand(x: Array, units: Array, out: Array) -> Array:
    """Write the compact columns of x to their places in out, +0.0 elsewhere."""
    kernels.scatter(x, None, (units, 0), out)
    return out


def compress(x: Array, units: Array | None, out: Array, rows: Array | None = None) -> Array:
    """Write the kept columns (and rows) of x side by side to out; None: all are kept."""
    lines = None if rows is None else (rows, 0)
    kernels.gather(x, lines, None if units is None else (units, 0), out)
    return out
