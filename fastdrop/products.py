"""The three methods of a masked product of matrices, and the choice among them.

``dense`` applies the masks and multiplies everything in NumPy's BLAS; ``compact`` multiplies what
unit masks keep, gathered while it is packed for the caches; ``skip`` multiplies the stored elements
of the sparse operand only. Every function computes

    out = m_out ∘ ((m_in ∘ x) @ w * scale + bias * bias_scale)

for matrices x (rows, depth), w (depth, columns), with `RowMask` masks or None.
"""

import math
import threading

import numpy

from fastdrop._backend import kernels
from fastdrop.aligned import aligned_empty
from fastdrop.cost import compact_cost, dense_cost, gradient_cost, skip_cost
from fastdrop.operands import one_axis_contiguous, rows_contiguous

__all__ = ["METHODS", "multiply", "multiply_transposed"]

METHODS = ("auto", "compact", "skip", "dense")
# Groups of fewer rows have nothing to share: every one would pack its weights for itself.
SMALLEST_GROUP = 4
# Multiply-adds of a product not worth a second thought.
SMALL_PRODUCT = 1 << 17
# Elements of x that are looked at for its share of zeros: of a large x, rows at equal distances.
COUNTED_ELEMENTS = 1 << 15
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
        if self.skip_zeros and self.x.size:
            rows, depth = self.x.shape
            every = max(1, rows * depth // COUNTED_ELEMENTS)
            counted = self.x[:: min(every, rows)]
            share *= numpy.count_nonzero(counted) / counted.size
        return share


def multiply(product, method):
    """Compute a product by a method; returns the method taken, "auto" resolved."""
    if method == "auto":
        method = choose(product)
    if method == "skip":
        _skip(product)
    elif method == "compact":
        _compact(product)
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
    if mask_in is not None and shape[0] * product.w.size < SMALL_PRODUCT:
        return "skip"  # by the time the others' costs are worked out it is done
    dtype = product.x.dtype
    method, least = "dense", dense_cost(*shape, dtype)
    if mask_in is not None or product.skip_zeros:
        shared = mask_in is not None and mask_in.rows_per_mask >= 4 and not product.skip_zeros
        cost = skip_cost(*shape, dtype, product.density(), shared)
        if cost < least:
            method, least = "skip", cost
    group = groups_of(product)
    if group >= SMALLEST_GROUP or group == shape[0]:
        kept_in = 1.0 if mask_in is None else mask_in.density()
        kept_out = 1.0 if mask_out is None else mask_out.density()
        if compact_cost(*shape, dtype, kept_in, kept_out, group) < least:
            method = "compact"
    return method


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
    """Whether an array holds no infinity or NaN; large numbers may be taken for infinity, with a
    warning.
    """
    if array.flags.forc:
        flat = array.ravel("K")
        return math.isfinite(numpy.dot(flat, flat))  # the fastest pass there is
    return math.isfinite(array.sum())


@numpy.errstate(all="ignore")  # of dropped numbers nobody wants to hear
def _dense(p):
    x = p.x
    scaled = p.mask_in is not None
    if scaled:
        x = _masked(x, p.mask_in, p.scale, buffer("masked", x.shape, x.dtype))
    numpy.matmul(x, p.w, out=p.out)
    if scaled and not _finite(p.out):
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
        _dense_transposed(p)
    with numpy.errstate(all="ignore"):
        finite = mask_out is None or _finite(out)
    if not finite:
        p.w = grad
        _compact_transposed(p, 1)  # sample by sample: dropped outputs have no part in it at all


@numpy.errstate(all="ignore")
def _dense_transposed(p):
    x = p.x
    if p.mask_in is not None:
        x = _masked(x, p.mask_in, 1.0, buffer("masked", x.shape, x.dtype))
    numpy.matmul(x.T, p.w, out=p.out)
    if p.mask_in is not None and not _finite(p.out):
        _skip_transposed(p)  # a dropped element's zero may have met infinity
    elif p.scale != 1:
        numpy.multiply(p.out, p.out.dtype.type(p.scale), out=p.out)


def _skip_transposed(p):
    kernels.skip_matmul(
        p.x.T, True, *_bits(p.mask_in), p.skip_zeros, p.w, p.scale, None, 1.0, None, 1, p.out
    )


def _choose_transposed(p):
    mask_in, mask_out = p.mask_in, p.mask_out
    if mask_in is None and mask_out is None and not p.skip_zeros:
        return "dense"
    rows, depth = p.x.shape
    shape = (depth, rows, p.w.shape[1])
    dtype = p.x.dtype
    method, least = "dense", dense_cost(*shape, dtype)
    if mask_in is not None or p.skip_zeros:
        cost = skip_cost(*shape, dtype, p.density(), False)
        if cost < least:
            method, least = "skip", cost
    group = groups_of(p)
    if group >= SMALLEST_GROUP or group == rows:
        kept_in = 1.0 if mask_in is None else mask_in.density()
        kept_out = 1.0 if mask_out is None else mask_out.density()
        if gradient_cost(rows, depth, p.w.shape[1], dtype, kept_in, kept_out, group) < least:
            method = "compact"
    return method


def _compact_transposed(p, group):
    """The groups' products, added up."""
    kernels.compact_gradient(
        p.x, *_bits(p.mask_in), group, rows_contiguous(p.w), *_bits(p.mask_out), p.scale, p.out
    )


def gathered_columns(name, x, units):
    """The active columns of a matrix, in a work array; x itself where all are."""
    if units[0] is None:
        return x
    out = buffer(name, (x.shape[0], active_units(units, x.shape[1])), x.dtype)
    kernels.gather(x, None, 0, *units, out)
    return out


def active_units(units, width):
    """Number of units whose bits are set; units are (bits, offset)."""
    bits, offset = units
    if bits is None:
        return width
    first = offset >> 3
    last = -(-(offset + width) // 8)
    row = numpy.unpackbits(bits[first:last], bitorder="little")
    return int(numpy.count_nonzero(row[offset & 7 : (offset & 7) + width]))
