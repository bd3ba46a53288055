"""What travels between the blocks of a network: an array, and what is known of its units."""

from typing import TYPE_CHECKING

import numpy

from fastdrop.nn.masks import compress, expand

if TYPE_CHECKING:
    from fastdrop.operands import RowMask
    from fastdrop.types import Array, Shape

__all__ = ["Signal"]


class Signal:
    """Activations of a batch, and which of them dropout has kept.

    A block gets one, and returns one. In training the array has columns for the kept units only,
    where all rows of the batch share one mask; elsewhere dropped elements are +0.0 in it.

    Parameters
    ----------
    batch_shape : tuple of int
    units : int

    Attributes
    ----------
    array : numpy.ndarray, shape (rows, kept)
        Set by whoever makes the signal, as all that follows `kept` is where it is not as here.
    batch_shape : tuple of int
        The shape of the batch without the units; its product is `rows`.
    units : int
        Units, kept and dropped.
    kept : int
        Columns of the array.
    kept_units : numpy.ndarray of uint8 or None
        Packed bits of the kept units, where only these have columns.
    mask : RowMask or None
        The mask of an array whose rows differ. Not both of `kept_units` and `mask` are there.
    any_kept : numpy.ndarray of uint8 or None
        Packed bits of the units that any row of the batch keeps; None: all.
    scale : float
        The factor of dropout on kept elements.
    skip_zeros : bool
        Whether products may leave out zeros of the array.
    nonzeros : float
        The share of its elements that are not 0, where zeros may be left out.
    """

    array: "Array"
    kept_units: "Array | None" = None
    mask: "RowMask | None" = None
    any_kept: "Array | None" = None
    scale = 1.0
    skip_zeros = False
    nonzeros = 1.0

    def __init__(self, batch_shape: "Shape", units: int) -> None:
        self.batch_shape = batch_shape
        self.units = self.kept = units

    @property
    def shape(self) -> "Shape":
        """tuple of int: of the activations, (batch, ..., units)."""
        return (*self.batch_shape, self.units)

    def all_units(self, out: "Array | None" = None) -> "Array":
        """Return the array with a column for every unit, dropped ones +0.0; itself if it is so.

        Parameters
        ----------
        out : numpy.ndarray, shape (rows, units), optional
            Where such an array goes; a fresh one unless given.
        """
        x = self.array
        if self.kept_units is None:
            return x
        if out is None:
            out = numpy.empty((x.shape[0], self.units), x.dtype)
        return expand(x, self.kept_units, out)

    def kept_columns(self, x: "Array", out: "Array | None" = None) -> "Array":
        """Return the columns of kept units of another array (rows, units); itself if all are kept.

        Parameters
        ----------
        x : numpy.ndarray, shape (rows, units)
        out : numpy.ndarray, shape (rows, kept), optional
            Where they go; a fresh array unless given.
        """
        if self.kept_units is None:
            return x
        if out is None:
            out = numpy.empty((x.shape[0], self.kept), x.dtype)
        return compress(x, self.kept_units, out)
