"""The three methods of a masked product of matrices, and the choice among them.

``dense`` applies the masks and multiplies everything in NumPy's BLAS; ``compact`` multiplies what
unit masks keep, gathered while it is packed for the caches; ``skip`` multiplies the stored elements
of the sparse operand only. Every function computes

    out = m_out ∘ ((m_in ∘ x) @ w * scale + bias * bias_scale)

for matrices x (rows, depth), w (depth, columns), with `RowMask` masks or None.
"""

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
    plain_cost,
    skip_cost,
)
from fastdrop.operands import one_axis_contiguous, rows_contiguous

__all__ = ["METHODS", "cheapest", "multiply", "multiply_transposed"]

METHODS = ("auto", "compact", "skip", "dense")
# Groups of fewer rows have nothing to share: every one would pack its weights for itself.
SMALLEST_GROUP = 4
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


def buffer(name, shape, dtype):
    """A work array of the calling thread, overwritten by the next request of the same name."""
    size = math.prod(shape)
    held = getattr(_local, name, None)
    if held is None or held.dtype != dtype or held.size < size:
        held = aligned_empty((size,), dtype)
        if held.nbytes <= KEPT_BYTES:
            setattr(_local, name, held)
    return held[:size].reshape(shape)


class Product:
    """One product and what goes with it; see the module."""

    __slots__ = (
        "bias", "bias_scale", "group", "mask_in", "mask_out", "out", "scale", "skip_zeros", "w",
        "x",
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
        self.group = _groups_of(mask_in, mask_out, x.shape[0])

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


def _groups_of(mask_in, mask_out, rows):
    """Rows per group where both masks repeat along the same groups of rows; else 0."""
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
    if 0 in shape:
        return "skip"  # of nothing: sums are zero
    share = product.density() if mask_in is not None or product.skip_zeros else None
    shared = mask_in is not None and mask_in.rows_per_mask >= 4 and not product.skip_zeros
    standing = not product.w.flags.c_contiguous
    direct = mask_in is not None and not standing and product.x.flags.c_contiguous
    return cheapest(
        kernels.isa_used(), shape, product.x.dtype, share, shared, *_kept(product), standing, direct
    )


def _kept(product):
    """Shares that the masks keep, and rows per group, where groups have units of their own."""
    group = product.group
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
    isa, shape, dtype, share, shared, kept_in, kept_out, group, standing=False, direct=False
):
    """The method of a product of this shape; `isa` is for the table of costs."""
    costs = {"dense": dense_cost(*shape, dtype), "plain": plain_cost(*shape, dtype)}
    if share is not None:
        costs["skip"] = skip_cost(*shape, dtype, share, shared, standing)
    if group > 1:  # of one row, nothing is worth packing for
        costs["compact"] = compact_cost(*shape, dtype, kept_in, kept_out, group)
    if direct:
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


def _layout(mask):
    """Bits, shape and rows per mask, as a matrix is masked by them."""
    return mask.bits, mask.shape, mask.rows_per_mask


def _masked(array, mask, scale, out):
    kernels.apply_mask(array, *_layout(mask), scale, out)
    return out


def _none_leaked(operand, out):
    """Whether no infinity or NaN of an operand can have met the zero of a dropped element.

    It would be in the product, too: the smaller one is looked at.
    """
    return kernels.all_finite(operand if operand.size < out.size else out)


@numpy.errstate(all="ignore")
def _bare(x, p):
    """A product without a mask, x or its transpose by w."""
    numpy.matmul(x, p.w, out=p.out)
    if p.scale != 1:
        numpy.multiply(p.out, p.out.dtype.type(p.scale), out=p.out)


def _drops(mask):
    """Whether there is a mask that has to be applied."""
    return mask is not None and not mask.keeps_all()


def _dense(p):
    if not _drops(p.mask_in):
        _bare(p.x, p)
    elif not kernels.dense_matmul(p.x, False, *_layout(p.mask_in), p.scale, p.w, p.out):
        # Infinity or NaN in w may have met a dropped element's zero, which is no product at all.
        _skip(p)
        return
    _add_bias(p, p.out)
    if _drops(p.mask_out):
        _masked(p.out, p.mask_out, 1.0, p.out)


@numpy.errstate(all="ignore")
def _add_bias(p, out):
    if p.bias is not None:
        numpy.add(out, p.bias * out.dtype.type(p.bias_scale), out=out)


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


def _direct(p):
    """As `_dense`, by a kernel that packs nothing of w; there is a mask of x."""
    out = _contiguous_out(p)
    if not kernels.direct_matmul(p.x, *_bits(p.mask_in), p.w, p.scale, out):
        _skip(p)  # infinity or NaN in w may have met a dropped element's zero
        return
    _add_bias(p, out)
    _deliver(p, out)


def _compact(p):
    """Every group of rows multiplies its own units."""
    if not p.group:
        raise ValueError(
            "method 'compact' needs masks shared by the same groups of rows; use 'auto' or 'skip'"
        )
    kernels.compact_matmul(
        rows_contiguous(p.x), *_bits(p.mask_in), p.group, p.w, p.scale, p.bias, p.bias_scale,
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
    if method == "compact" and p.group:
        _compact_transposed(p, p.group)
        return
    grad = p.w
    if method == "skip":
        _skip_transposed(p)
    else:
        if mask_out is not None:
            p.w = _masked(grad, mask_out, 1.0, buffer("masked_grad", grad.shape, grad.dtype))
        if method == "plain":
            _plain_transposed(p)
        else:
            _dense_transposed(p)
    if mask_out is not None and not _none_leaked(x, out):
        p.w = grad
        _compact_transposed(p, 1)  # sample by sample: dropped outputs have no part in it at all


def _dense_transposed(p):
    if not _drops(p.mask_in):
        _bare(p.x.T, p)
    elif not kernels.dense_matmul(p.x, True, *_layout(p.mask_in), p.scale, p.w, p.out):
        _skip_transposed(p)  # a dropped element's zero may have met infinity


def _plain_transposed(p):
    x, mask = p.x, p.mask_in
    if mask is not None:
        x = _masked(x, mask, 1.0, buffer("masked", x.shape, x.dtype))
    grad = rows_contiguous(p.w)
    kernels.compact_gradient(x, None, 1, max(len(x), 1), grad, None, 1, p.scale, p.out)
    if mask is not None and not _none_leaked(grad, p.out):
        _skip_transposed(p)


def _skip_transposed(p):
    grad = p.w if p.mask_out is None else rows_contiguous(p.w)
    kernels.skip_matmul(
        p.x.T, True, *_bits(p.mask_in), p.skip_zeros, grad, p.scale, None, 1.0, None, 1, p.out,
        *_bits(p.mask_out),
    )  # fmt: skip


def _choose_transposed(p):
    if p.mask_in is None and p.mask_out is None and not p.skip_zeros:
        return "dense"
    shape = (*p.x.shape, p.w.shape[1])
    if 0 in shape:
        return "skip"
    share = p.density() if p.mask_in is not None or p.skip_zeros else None
    return _cheapest_gradient(kernels.isa_used(), shape, p.x.dtype, share, *_kept(p))


@functools.lru_cache(REMEMBERED)
def _cheapest_gradient(isa, shape, dtype, share, kept_in, kept_out, group):
    """As `cheapest`, of the gradient of the weights."""
    rows, depth, columns = shape
    plain = gradient_cost(*shape, dtype, 1.0, 1.0, max(rows, 1))
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
