"""The operands of masked products, and how to tell that a result is right.

A step returns y and the gradients of x and w, as a tuple.
"""

import dataclasses
import functools

import numpy

from .. import verify

__all__ = ["Work", "check_product"]


def _written_out(mask, shape):
    """Return which elements of a matrix a mask keeps, one bool each."""
    if mask is None:
        return numpy.ones(shape, bool)
    rows = 1 if mask.rows_per_mask == "batch" else mask.rows_per_mask
    kept = mask.to_array()
    if len(kept) > 1:
        kept = kept[numpy.arange(shape[0]) // rows]
    return numpy.broadcast_to(kept, shape)


def _factors(mask, shape):
    """Return a mask as most programs have it: float32, the scale where it keeps, else 0."""
    scale = numpy.float32(1 if mask is None else mask.scale)
    return numpy.where(_written_out(mask, shape), scale, numpy.float32(0))


def check_product(found, a, b, roundings, kept=None):
    """Require that ``found`` is ``a @ b`` up to the rounding of a float32 sum of that length.

    Each product is rounded at most once for each of the sum's terms, and `roundings` times by
    scales: the error is at most gamma_n times the sum of the products' magnitudes, with
    ``gamma_n = n u / (1 - n u)`` and u half of eps, and likewise for the float64 sum that it is
    compared with. What is not kept has to be zero.
    """
    n = a.shape[1] + roundings
    expected, magnitude = a @ b, abs(a) @ abs(b)
    if kept is not None:
        expected[~kept] = magnitude[~kept] = 0
    error = sum(n * u / (1 - n * u) for u in (2.0**-24, 2.0**-53)) * magnitude
    same = found.shape == expected.shape and found.dtype == numpy.float32
    verify.require(same, "the result has another shape or dtype")
    # Written so that NaN is not close to anything.
    verify.require((abs(found - expected) <= error).all(), "the product is beyond its rounding")


@dataclasses.dataclass
class Work:
    """The operands of a product, and what has to come out.

    Parameters
    ----------
    x, w, grad_y : numpy.ndarray of float32
        Of shapes (rows, units_in), (units_in, units_out) and (rows, units_out).
    mask_in, mask_out : fastdrop.Mask, optional
        What is dropped of x, and of the result.
    skip_zeros : bool
        Whether zeros of x and grad_y may be skipped.
    """

    x: numpy.ndarray
    w: numpy.ndarray
    grad_y: numpy.ndarray
    mask_in: object = None
    mask_out: object = None
    skip_zeros: bool = False

    @functools.cached_property
    def factors_in(self):
        """The mask of x as float32 factors."""
        return _factors(self.mask_in, self.x.shape)

    @functools.cached_property
    def factors_out(self):
        """The mask of the result as float32 factors."""
        return _factors(self.mask_out, self.grad_y.shape)

    @functools.cached_property
    def dropped_x(self):
        """The input with dropout, float32: what a dense program multiplies."""
        return self.x * self.factors_in

    @functools.cached_property
    def dropped_grad(self):
        """The gradient behind the dropout of the result, float32."""
        return self.grad_y * self.factors_out

    def check_forward(self, y):
        """Require that `y` is the product of the dropped x; nothing is dropped of it."""
        check_product(y, self.x.astype(float) * self.factors_in, self.w.astype(float), 4)

    def check_step(self, result):
        """Require that the results of a step are right, and exactly zero where they are dropped."""
        y, grad_x, grad_w = result[:3]
        wide = self.w.astype(float)
        a, g = self.x.astype(float) * self.factors_in, self.grad_y.astype(float) * self.factors_out
        check_product(y, a, wide * self.factors_out.max(), 6, self.factors_out != 0)
        check_product(grad_x, g, wide.T * self.factors_in.max(), 6, self.factors_in != 0)
        check_product(grad_w, a.T, g, 6)
