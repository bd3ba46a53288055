"""Packed bits: checked, and unpacked to booleans."""

from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

__all__ = ["Array", "Shape", "Units", "check_bits", "unpacked"]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
# Packed bits of active units, and the number of the first one's bit; None: all units.
Units: TypeAlias = tuple[Array, int] | None


def check_bits(bits: Array, n: int, name: str = "bits") -> None:
    """Check that an array can hold `n` packed bits.

    Raises
    ------
    ValueError
        If it is not one-dimensional, not of uint8 or too short.
    """
    if bits.dtype != numpy.uint8 or bits.ndim != 1 or bits.size < (n + 7) // 8:
        raise ValueError(
            f"{name} must be 1-d uint8 of at least {(n + 7) // 8} bytes, "
            f"got {bits.dtype} of shape {bits.shape}"
        )


def unpacked(bits: Array, n: int, offset: int = 0, name: str = "bits") -> Array:
    """Return `n` packed bits as booleans, the first of them bit number `offset`.

    Examples
    --------
    >>> unpacked(numpy.array([0b1101], dtype=numpy.uint8), 3, offset=1)
    array([False,  True,  True])
    """
    check_bits(bits, offset + n, name)
    whole = numpy.unpackbits(bits[: (offset + n + 7) // 8], count=offset + n, bitorder="little")
    return whole[offset:].view(bool)
