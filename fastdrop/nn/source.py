"""What a part of a network reads: arrays, and what is known of them."""

import numpy

from fastdrop.nn.masks import compress, expand
from fastdrop.operands import share_of_nonzeros

__all__ = ["ALL", "Source"]

ALL = 1.0


class Source:
    """What a link reads: the network's input, or the link before.

    Attributes
    ----------
    width : int
        Units.
    units : numpy.ndarray of uint8 or None
        Bits of the active units, where only these are stored.
    active : int
        Columns stored.
    mask : RowMask or None
        The mask of rows that differ.
    taken : numpy.ndarray of uint8 or None
        Bits of the units that any row kept; None: all.
    sparse : bool
        Whether there are zeros that may be skipped, a `share` of the elements being others.
    """

    def __init__(self):
        self.width = self.active = 0
        self.units = self.mask = self.taken = None
        self.sparse = False
        self.share = ALL

    def holds(self, x):
        """Say what the network's input is."""
        self.width = self.active = x.shape[1]
        if self.sparse:
            self.share = share_of_nonzeros(x)

    def expanded(self, x, out):
        """x with a column for every unit, in out where columns are missing."""
        return x if self.units is None else expand(x, self.units, out)

    def compressed(self, x):
        """The columns of x that are stored, a fresh array; x itself if all are."""
        if self.units is None:
            return x
        return compress(x, self.units, numpy.empty((x.shape[0], self.active), x.dtype))
