"""The three methods of a masked product of matrices, and the choice among them.

``dense`` applies the masks and multiplies everything in NumPy's BLAS; ``compact`` multiplies what
unit masks keep, gathered while it is packed for the caches; ``skip`` multiplies the stored elements
of the sparse operand only. Every function computes

    out = m_out ∘ ((m_in ∘ x) @ w * scale + bias * bias_scale)

for matrices x (rows, depth), w (depth, columns), with `RowMask` masks or None.
"""

import contextvars
import functools
import math
import threading

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_empty
from fastdrop.cost import (
    compact_cost,
    dense_cost,
    direct_cost,
    gradient_cost,
    masks_cost,
    skip_cost,
)
from fastdrop.operands import one_axis_contiguous, rows_contiguous

__all__ = ["METHODS", "cheapest", "multiply", "multiply_transposed", "small_dense"]

METHODS = ("auto", "compact", "skip", "dense")
# Groups of fewer rows have nothing to share: every one would pack its weights for itself.
SMALLEST_GROUP = 4
# Multiply-adds of a product not worth a second thought.
SMALL_PRODUCT = 1 << 17
# Beyond this the checks of a product do not matter.
MIDDLE_PRODUCT = 1 << 28
# Elements of x that are looked at for its share of zeros: of a large x, rows at equal distances.
COUNTED_ELEMENTS = 1 << 13
# Shares of zeros that are told apart: few, for the same choice to be found again.
SHARES = 256
# Choices that are remembered: a network has few shapes.
REMEMBERED = 1024
# A buffer above this is given back at the end of its call.
KEPT_BYTES = 1 << 26

_local = threading.local()
# Where no error of arithmetic is told. To enter a copy of it takes a fifth of `numpy.errstate`.
_quiet = contextvars.Context()
_quiet.run(numpy.seterr, all="ignore")


def buffer(name, shape, dtype):
    """A work array of the calling thread, overwritten by the next request of the same name."""
    held, last = getattr(_local, name, (None, None))
    if last is not None and last.shape == shape and last.dtype == dtype:
        return last
    size = math.prod(shape)
    if held is None or held.dtype != dtype or held.size < size:
        held = aligned_empty((size,), dtype)
    array = held[:size].reshape(shape)
    if held.nbytes <= KEPT_BYTES:
        setattr(_local, name, (held, array))
    return array


class Product:
    """One product and what goes with it; see the module."""

    __slots__ = (
        "bias", "bias_scale", "mask_in", "mask_out", "out", "scale", "skip_zeros", "w", "x",
    )  # fmt: skip

    def __init__(self, x, w, out, mask_in, mask_out, scale, bias, bias_scale, skip_zeros):
        self.x = x
        self.w = w
        self.out = out
        self.mask_in = mask_in
        self.mask_out = mask_out
        self.scale = scale
        self.bias = bias
        self.bias_scale = bias_scale
        self.skip_zeros = skip_zeros

    def density(self):
        """Share of the elements of x that are multiplied."""
        share = 1.0 if self.mask_in is None else self.mask_in.density()
        if self.skip_zeros:
            share *= kernels.sampled_share(self.x, COUNTED_ELEMENTS, SHARES)
        return share


def multiply(product, method):
    """Compute a product by a method; returns the method taken, "auto" resolved.

    "plain" is "dense" by a kernel, which for small products is faster than NumPy's BLAS; "direct"
    the same for the smallest, where nothing is packed.
    """
    if method == "auto":
        method = choose(product)
    if method == "skip":
        _skip(product)
    elif method == "compact":
        _compact(product)
    elif method == "plain":
        _plain(product)
    elif method == "direct":
        _direct(product)
    else:
        _dense(product)
    return method


def groups_of(product):
    """Rows per group where both masks repeat along the same groups of rows; else 0."""
    rows = product.x.shape[0]
    mask_in, mask_out = product.mask_in, product.mask_out
    group = max(rows, 1) if mask_in is None else mask_in.rows_per_mask
    if mask_out is not None and mask_out.rows_per_mask != group:
        other = mask_out.rows_per_mask
        if group >= rows:
            group = other
        elif other < rows:
            return 0
    return min(group, max(rows, 1))


def choose(product):
    """The method the cost model prefers."""
    mask_in, mask_out = product.mask_in, product.mask_out
    if mask_in is None and mask_out is None and not product.skip_zeros:
        return "dense"
    shape = (*product.x.shape, product.w.shape[1])
    if mask_in is not None and kernels.direct_fits(product.x, product.w, mask_in.keep_prob):
        return "direct"
    if mask_in is not None and shape[0] * product.w.size < SMALL_PRODUCT:
        return "skip"  # by the time the others' costs are worked out it is done
    share = product.density() if mask_in is not None or product.skip_zeros else None
    shared = mask_in is not None and mask_in.rows_per_mask >= 4 and not product.skip_zeros
    standing = not product.w.flags.c_contiguous
    dtype = product.x.dtype
    near = mask_in is not None and kernels.direct_is_near(product.x, product.w)
    return cheapest(
        kernels.isa_used(), shape, dtype, share, shared, *_kept(product), standing, near
    )


def _kept(product):
    """Shares that the masks keep, and rows per group, where groups have units of their own."""
    group = groups_of(product)
    if group < SMALLEST_GROUP and group != product.x.shape[0]:
        return None, None, 0
    mask_in, mask_out = product.mask_in, product.mask_out
    return (
        1.0 if mask_in is None else mask_in.density(),
        1.0 if mask_out is None else mask_out.density(),
        group,
    )


@functools.lru_cache(REMEMBERED)
def cheapest(
    isa, shape, dtype, share, shared, kept_in, kept_out, group, standing=False, near=False
):
    """The method of a product of this shape; `isa` is for the table of costs."""
    plain = compact_cost(*shape, dtype, 1.0, 1.0, max(shape[0], 1)) + masks_cost(*shape, dtype)
    costs = {"dense": dense_cost(*shape, dtype), "plain": plain}
    if share is not None:
        costs["skip"] = skip_cost(*shape, dtype, share, shared, standing)
    if group:
        costs["compact"] = compact_cost(*shape, dtype, kept_in, kept_out, group)
    if near:
        costs["direct"] = direct_cost(*shape, dtype)
    return min(costs, key=costs.get)


def _bits(mask):
    """Bits and rows per mask, as the kernels take them."""
    return (None, 1) if mask is None else (mask.bits, mask.rows_per_mask)


def _skip(p):
    kernels.skip_matmul(
        rows_contiguous(p.x), False, *_bits(p.mask_in), p.skip_zeros, p.w, p.scale, p.bias,
        p.bias_scale, *_bits(p.mask_out), p.out,
    )  # fmt: skip


def _masked(array, mask, scale, out):
    kernels.apply_mask(array, mask.bits, mask.shape, mask.rows_per_mask, scale, out)
    return out


def _finite(array):
    """Whether an array holds no infinity or NaN."""
    return kernels.all_finite(array if array.flags.c_contiguous else array.copy())


def _none_leaked(operand, out):
    """Whether no infinity or NaN of an operand can have met the zero of a dropped element.

    It would be in the product, too: the smaller one is looked at.
    """
    return _finite(operand if operand.size < out.size else out)


def _matmul(x, w, out):
    """``numpy.matmul`` without a warning: of dropped numbers nobody wants to hear."""
    _quiet.copy().run(numpy.matmul, x, w, out)


def small_dense(x, bits, shape, rows_per_mask, scale, w, out):
    """As `_dense`, of a mask of x alone, with the least Python; False if infinity may leak."""
    masked = buffer("masked", x.shape, x.dtype)
    kernels.apply_mask(x, bits, shape, rows_per_mask, scale, masked)
    _matmul(masked, w, out)
    return _none_leaked(w, out)


@numpy.errstate(all="ignore")
def _dense(p):
    x = p.x
    scaled = p.mask_in is not None
    if scaled:
        x = _masked(x, p.mask_in, p.scale, buffer("masked", x.shape, x.dtype))
    numpy.matmul(x, p.w, out=p.out)
    if scaled and not _none_leaked(p.w, p.out):
        # Infinity or NaN in w may have met a dropped element's zero, which is no product at all.
        _skip(p)
        return
    one = p.out.dtype.type
    if p.scale != 1 and not scaled:
        numpy.multiply(p.out, one(p.scale), out=p.out)
    if p.bias is not None:
        numpy.add(p.out, p.bias * one(p.bias_scale), out=p.out)
    if p.mask_out is not None:
        _masked(p.out, p.mask_out, 1.0, p.out)


def _contiguous_out(p):
    """The product's `out`, or an array in its place for kernels that need it in one piece."""
    return p.out if p.out.flags.c_contiguous else numpy.empty(p.out.shape, p.x.dtype)


def _deliver(p, out):
    """Bring a finished result to the product's `out`, masked."""
    if p.mask_out is not None:
        _masked(out, p.mask_out, 1.0, p.out)
    elif out is not p.out:
        p.out[...] = out


def _plain(p):
    """As `_dense`, by a kernel."""
    out = _contiguous_out(p)
    x = rows_contiguous(p.x)
    if not kernels.plain_matmul(x, *_bits(p.mask_in), p.w, p.scale, p.bias, p.bias_scale, out):
        _skip(p)  # infinity or NaN in w may have met a dropped element's zero
        return
    _deliver(p, out)


@numpy.errstate(all="ignore")
def _direct(p):
    """As `_dense`, by a kernel that packs nothing of w; there is a mask of x."""
    out = _contiguous_out(p)
    if not kernels.direct_matmul(p.x, *_bits(p.mask_in), p.w, p.scale, out):
        _skip(p)  # infinity or NaN in w may have met a dropped element's zero
        return
    if p.bias is not None:
        numpy.add(out, p.bias * out.dtype.type(p.bias_scale), out=out)
    _deliver(p, out)


def _compact(p):
    """Every group of rows multiplies its own units."""
    group = groups_of(p)
    if not group:
        raise ValueError(
            "method 'compact' needs masks shared by the same groups of rows; use 'auto' or 'skip'"
        )
    kernels.compact_matmul(
        rows_contiguous(p.x), *_bits(p.mask_in), group, p.w, p.scale, p.bias, p.bias_scale,
        *_bits(p.mask_out), p.out,
    )  # fmt: skip


def multiply_transposed(x, grad, out, mask_in, mask_out, scale, skip_zeros, method):
    """out = (m_in ∘ x).T @ (m_out ∘ grad) * scale: the gradient of the weights.

    x is (rows, depth), grad (rows, columns), out (depth, columns).
    """
    x = rows_contiguous(x)
    p = Product(x, one_axis_contiguous(grad), out, mask_in, mask_out, scale, None, 1.0, skip_zeros)
    if method == "auto":
        method = _choose_transposed(p)
    if method == "compact" and groups_of(p):
        _compact_transposed(p, groups_of(p))
        return
    grad = p.w
    if mask_out is not None:
        p.w = _masked(grad, mask_out, 1.0, buffer("masked_grad", grad.shape, grad.dtype))
    if method == "skip":
        _skip_transposed(p)
    else:
        _dense_transposed(p, method == "plain")
    if mask_out is not None and not _none_leaked(x, out):
        p.w = grad
        _compact_transposed(p, 1)  # sample by sample: dropped outputs have no part in it at all


@numpy.errstate(all="ignore")
def _dense_transposed(p, plain):
    x = p.x
    if p.mask_in is not None:
        x = _masked(x, p.mask_in, 1.0, buffer("masked", x.shape, x.dtype))
    if plain:
        rows = max(x.shape[0], 1)
        kernels.compact_gradient(x, None, 1, rows, rows_contiguous(p.w), None, 1, 1.0, p.out)
    else:
        numpy.matmul(x.T, p.w, out=p.out)
    if p.mask_in is not None and not _none_leaked(p.w, p.out):
        _skip_transposed(p)  # a dropped element's zero may have met infinity
    elif p.scale != 1:
        numpy.multiply(p.out, p.out.dtype.type(p.scale), out=p.out)


def _skip_transposed(p):
    kernels.skip_matmul(
        p.x.T, True, *_bits(p.mask_in), p.skip_zeros, p.w, p.scale, None, 1.0, None, 1, p.out
    )


def _choose_transposed(p):
    if p.mask_in is None and p.mask_out is None and not p.skip_zeros:
        return "dense"
    share = p.density() if p.mask_in is not None or p.skip_zeros else None
    shape = (*p.x.shape, p.w.shape[1])
    return _cheapest_gradient(kernels.isa_used(), shape, p.x.dtype, share, *_kept(p))


@functools.lru_cache(REMEMBERED)
def _cheapest_gradient(isa, shape, dtype, share, kept_in, kept_out, group):
    """As `cheapest`, of the gradient of the weights."""
    rows, depth, columns = shape
    plain = gradient_cost(*shape, dtype, 1.0, 1.0, max(rows, 1)) + masks_cost(*shape, dtype)
    costs = {"dense": dense_cost(depth, rows, columns, dtype), "plain": plain}
    if share is not None:
        costs["skip"] = skip_cost(depth, rows, columns, dtype, share, False)
    if group:
        costs["compact"] = gradient_cost(*shape, dtype, kept_in, kept_out, group)
    return min(costs, key=costs.get)


def _compact_transposed(p, group):
    """The groups' products, added up."""
    kernels.compact_gradient(
        p.x, *_bits(p.mask_in), group, rows_contiguous(p.w), *_bits(p.mask_out), p.scale, p.out
    )
