"""What the kinds of dropout have in common: a mask that is given, results in any layout."""

from collections.abc import Callable

import numpy
from numpy.typing import ArrayLike

from fastdrop.functional import apply_mask, output_for
from fastdrop.mask import Mask, mask_operand
from fastdrop.pair import OutputAndMask
from fastdrop.types import Array, Shape

__all__ = ["check_given", "flat_bits", "result_array", "with_mask", "written"]


def check_given(
    mask: object, rate: object, keep_prob: object, rng: object, training: bool = True
) -> None:
    """Check that a mask is one, that nothing says how to draw another, and that it has a use.

    Raises
    ------
    TypeError
        If it is no Mask, a rate or `rng` is given as well, or outside of training.
    """
    if not isinstance(mask, Mask):
        raise TypeError(f"mask must be a fastdrop.Mask, got {type(mask).__name__}")
    for name, value in (("rate", rate), ("keep_prob", keep_prob), ("rng", rng)):
        if value is not None:
            raise TypeError(f"give a mask or {name}, not both: with a mask nothing is drawn")
    if not training:
        raise TypeError("mask must be None with training=False: nothing is dropped then")


def with_mask(
    x: ArrayLike,
    mask: Mask,
    rate: object,
    keep_prob: object,
    rng: object,
    training: bool,
    out: Array | None,
) -> OutputAndMask:
    """Apply a mask that is given instead of a drawn one; ``(y, mask)`` as `dropout` returns it."""
    check_given(mask, rate, keep_prob, rng, training)
    return OutputAndMask((apply_mask(x, mask, out=out), mask))


def result_array(out: Array | None, x: Array) -> Array:
    """`out`, checked, or a new array like x."""
    return numpy.empty_like(x) if out is None else output_for(out, x)


def written(y: Array, write: Callable[[Array], None], contiguous: bool = False) -> Array:
    """Have ``write(array)`` write a result to y, by way of another array where it cannot; return y.

    Parameters
    ----------
    y : numpy.ndarray
    write : callable
    contiguous : bool, optional
        Whether the array has to be C-contiguous.
    """
    flags = y.flags
    if flags.aligned and y.dtype.isnative and (flags.c_contiguous or not contiguous):
        write(y)
        return y
    direct = numpy.empty_like(y, y.dtype.newbyteorder("="), order="C" if contiguous else "K")
    write(direct)
    numpy.copyto(y, direct)
    return y


def flat_bits(mask: Mask, shape: Shape) -> Array:
    """The bits of a mask that fits an array, one for each of its elements in C order."""
    bits, mask_shape, rows_per_mask = mask_operand(mask, shape)
    if mask_shape == shape and rows_per_mask == 1:
        return bits
    kept = mask.to_array().reshape(mask_shape)
    if rows_per_mask > 1:
        kept = numpy.repeat(kept, rows_per_mask, axis=0)[: shape[0]]
    return numpy.packbits(numpy.broadcast_to(kept, shape), bitorder="little")
