"""Who else multiplies matrices of which a part was dropped: NumPy in several ways, SciPy, torch.

Each function takes the `Work` and returns a contender, or `Skipped` where its package is not
installed. A step returns y and the gradients of x and w, as a tuple.
"""

import dataclasses
import functools

import numpy

import fastdrop

from . import verify
from .cases import Contender, needs
from .environment import torch_generator

__all__ = [
    "Work",
    "apply_mask_forward",
    "dense_forward",
    "dense_step",
    "float_mask_forward",
    "float_mask_step",
    "gather_step",
    "scipy_forward",
    "scipy_step",
    "torch_forward",
    "torch_step",
]


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


def _check_product(found, a, b, roundings, kept=None):
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
        _check_product(y, self.x.astype(float) * self.factors_in, self.w.astype(float), 4)

    def check_step(self, result):
        """Require that the results of a step are right, and exactly zero where they are dropped."""
        y, grad_x, grad_w = result[:3]
        wide = self.w.astype(float)
        a, g = self.x.astype(float) * self.factors_in, self.grad_y.astype(float) * self.factors_out
        _check_product(y, a, wide * self.factors_out.max(), 6, self.factors_out != 0)
        _check_product(grad_x, g, wide.T * self.factors_in.max(), 6, self.factors_in != 0)
        _check_product(grad_w, a.T, g, 6)


# --- The forward product -----------------------------------------------------------------------


def dense_forward(work, out, name):
    """Multiply everything, of an input whose dropout cost nothing: the bound."""
    x, w = work.dropped_x, work.w
    return Contender(
        name,
        run=lambda: numpy.matmul(x, w, out=out),
        check=work.check_forward,
        calls="numpy.matmul",
        note="of an input with its dropout applied already",
    )


def apply_mask_forward(work, out, name):
    """Apply the mask with fastdrop, then multiply everything."""
    x, w, mask, dropped = work.x, work.w, work.mask_in, numpy.empty_like(work.x)

    def run():
        fastdrop.apply_mask(x, mask, out=dropped)
        return numpy.matmul(dropped, w, out=out)

    return Contender(name, run, work.check_forward, calls="numpy.matmul")


def float_mask_forward(work, out, name):
    """Multiply by the mask as floats, then multiply everything."""
    x, w, factors, dropped = work.x, work.w, work.factors_in, numpy.empty_like(work.x)

    def run():
        numpy.multiply(x, factors, out=dropped)
        return numpy.matmul(dropped, w, out=out)

    return Contender(name, run, work.check_forward, calls="numpy.matmul")


@needs("scipy", "SciPy CSR")
def scipy_forward(work):
    """Compress the dropped input to rows of non-zeros, multiply those."""
    from scipy import sparse

    x, w = work.dropped_x, work.w
    return Contender(
        "SciPy CSR",
        run=lambda: sparse.csr_matrix(x) @ w,
        check=work.check_forward,
        calls="scipy.sparse.csr_matrix",
        note="one thread",
    )


@needs("torch", "torch F.linear(F.dropout(x))")
def torch_forward(work, rate):
    """Draw a mask of its own, apply it, multiply everything."""
    import torch
    import torch.nn.functional as F

    x, w = torch.from_numpy(work.x), torch.from_numpy(work.w.T.copy())

    def run():
        dropped = F.dropout(x, rate, training=True)
        return F.linear(dropped, w), dropped

    def check(result):
        y, dropped = (tensor.numpy() for tensor in result)
        _check_torch_mask(dropped, work.x, rate)
        _check_product(y, dropped.astype(float), work.w.astype(float), 0)

    return Contender(
        "torch F.linear(F.dropout(x))",
        run,
        check,
        calls="torch.nn.functional.linear",
        note=f"draws its mask, with {torch_generator()}",
    )


def _check_torch_mask(dropped, x, rate):
    """Require that an array is another with dropout, which may have had zeros of its own."""
    present = x != 0
    verify.require(not dropped[~present].any(), "a zero did not stay zero")
    verify.check_rival(dropped[present], x[present], 1 - rate)


# --- The step ----------------------------------------------------------------------------------


def dense_step(work, name):
    """Multiply everything, without any dropout: what a step costs that drops nothing."""
    x, w, grad_y = work.dropped_x, work.w, work.dropped_grad
    y, grad_x, grad_w = numpy.empty_like(grad_y), numpy.empty_like(x), numpy.empty_like(w)

    def check(result):
        a, wide, g = (array.astype(float) for array in (x, w, grad_y))
        _check_product(result[0], a, wide, 0)
        _check_product(result[1], g, wide.T, 0)
        _check_product(result[2], a.T, g, 0)

    def run():
        numpy.matmul(x, w, out=y)
        numpy.matmul(grad_y, w.T, out=grad_x)
        numpy.matmul(x.T, grad_y, out=grad_w)
        return y, grad_x, grad_w

    return Contender(
        name, run, check, calls="numpy.matmul", note="the three products alone, no dropout"
    )


def float_mask_step(work):
    """Multiply by masks as floats before and after multiplying everything."""
    x, w, grad_y = work.x, work.w, work.grad_y
    factors_in, factors_out = work.factors_in, work.factors_out

    def run():
        dropped = x * factors_in
        y = numpy.matmul(dropped, w) * factors_out
        grad = grad_y * factors_out
        return y, numpy.matmul(grad, w.T) * factors_in, numpy.matmul(dropped.T, grad)

    return Contender("np.matmul, float masks", run, work.check_step, calls="numpy.matmul")


def gather_step(work, name):
    """Gather active units with NumPy's indexing, multiply them, scatter; group by group."""
    x, w, grad_y = work.x, work.w, work.grad_y
    scale = numpy.float32(work.mask_in.scale * work.mask_out.scale)
    rows_per_mask = work.mask_in.rows_per_mask
    length = len(x) if rows_per_mask == "batch" else rows_per_mask
    groups = [
        (slice(length * number, length * (number + 1)), *map(numpy.flatnonzero, pair))
        for number, pair in enumerate(
            zip(work.mask_in.to_array(), work.mask_out.to_array(), strict=True)
        )
    ]

    def forward():
        y = numpy.zeros(grad_y.shape, numpy.float32)
        for rows, units, units_out in groups:
            product = numpy.matmul(x[rows][:, units], w[numpy.ix_(units, units_out)])
            product *= scale
            y[rows, units_out] = product
        return y

    def run():
        y = forward()
        grad_x = numpy.zeros(x.shape, numpy.float32)
        grad_w = numpy.zeros(w.shape, numpy.float32)
        for rows, units, units_out in groups:
            grad = grad_y[rows][:, units_out]
            grad *= scale
            both = numpy.ix_(units, units_out)
            grad_x[rows, units] = numpy.matmul(grad, w[both].T)
            product = numpy.matmul(x[rows][:, units].T, grad)
            if len(groups) == 1:
                grad_w[both] = product
            else:
                grad_w[both] += product
        return y, grad_x, grad_w

    return Contender(name, run, work.check_step, calls="numpy.matmul")


@needs("scipy", "SciPy CSR")
def scipy_step(work):
    """Compress the dropped input and gradient to rows of non-zeros, multiply those."""
    from scipy import sparse

    x, w, grad_y = work.dropped_x, work.w, work.dropped_grad
    factors_in, factors_out = work.factors_in, work.factors_out

    def run():
        a, g = sparse.csr_matrix(x), sparse.csr_matrix(grad_y)
        return (a @ w) * factors_out, (g @ w.T) * factors_in, a.T @ grad_y

    return Contender(
        "SciPy CSR", run, work.check_step, calls="scipy.sparse.csr_matrix", note="one thread"
    )


@needs("torch", "torch F.linear(F.dropout(x)), autograd")
def torch_step(work, rate):
    """Draw a mask of its own, multiply everything, and let autograd go back."""
    import torch
    import torch.nn.functional as F

    x, w = torch.from_numpy(work.x.copy()), torch.from_numpy(work.w.T.copy())
    grad_y = torch.from_numpy(work.dropped_grad)
    x.requires_grad_()
    w.requires_grad_()

    def run():
        dropped = F.dropout(x, rate, training=True)
        y = F.linear(dropped, w)
        return y.detach(), *torch.autograd.grad(y, (x, w), grad_y), dropped.detach()

    def check(result):
        y, grad_x, grad_w, dropped = (tensor.numpy() for tensor in result)
        _check_torch_mask(dropped, work.x, rate)
        a, wide, g = (array.astype(float) for array in (dropped, work.w, work.dropped_grad))
        _check_product(y, a, wide, 0)
        _check_product(grad_w.T, a.T, g, 0)
        kept = (dropped != 0) & (work.x != 0)
        found = numpy.where(kept, grad_x, numpy.float32(0))
        _check_product(found, g, wide.T / (1 - rate), 2, kept)

    return Contender(
        "torch F.linear(F.dropout(x)), autograd",
        run,
        check,
        calls="torch.nn.functional.linear",
        note=f"drops x alone, and draws that mask, with {torch_generator()}",
    )
