"""A mask that is given in the place of one that is drawn: what kinds of dropout have in common."""

from fastdrop.functional import apply_mask
from fastdrop.mask import Mask
from fastdrop.pair import OutputAndMask

__all__ = ["check_given", "with_mask"]


def check_given(mask, rate, keep_prob, rng):
    """Check that a mask is one, and that nothing says how to draw another.

    Raises
    ------
    TypeError
        If it is no Mask, or a rate or `rng` is given as well.
    """
    if not isinstance(mask, Mask):
        raise TypeError(f"mask must be a fastdrop.Mask, got {type(mask).__name__}")
    for name, value in (("rate", rate), ("keep_prob", keep_prob), ("rng", rng)):
        if value is not None:
            raise TypeError(f"give a mask or {name}, not both: nothing is drawn where a mask is")


def with_mask(x, mask, rate, keep_prob, rng, training, out):
    """Apply a mask that is given instead of a drawn one; ``(y, mask)`` as `dropout` returns it."""
    check_given(mask, rate, keep_prob, rng)
    if not training:
        raise TypeError("mask must be None with training=False: nothing is dropped then")
    return OutputAndMask((apply_mask(x, mask, out=out), mask))
