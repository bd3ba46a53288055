"""The three methods of a masked product of matrices, and the choice among them.

``dense`` applies the masks and multiplies everything; ``compact`` gathers what unit masks keep,
multiplies that in NumPy's BLAS and scatters the result; ``skip`` multiplies the stored elements of
the sparse operand only. Every function computes

    out = m_out ∘ ((m_in ∘ x) @ w * scale + bias * bias_scale)

for matrices x (rows, depth), w (depth, columns), with `RowMask` masks or None.
"""

import math
import threading

import numpy

from fastdrop._backend import kernels
from fastdrop.cost import cheapest, compact_cost, dense_cost, skip_cost
from fastdrop.operands import one_axis_contiguous, rows_contiguous

__all__ = ["METHODS", "multiply", "multiply_transposed"]

METHODS = ("auto", "compact", "skip", "dense")
# A buffer above this is given back at the end of its call.
KEPT_BYTES = 1 << 26

_local = threading.local()


def buffer(name, shape, dtype):
    """A work array of the calling thread, overwritten by the next request of the same name."""
    size = math.prod(shape)
    held = getattr(_local, name, None)
    if held is None or held.dtype != dtype or held.size < size:
        held = numpy.empty(size, dtype)
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
        share = 1.0 if self.mask_in is None else self.mask_in.density
        if self.skip_zeros and self.x.size:
            share *= numpy.count_nonzero(self.x) / self.x.size
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
    sharing = {
        mask.rows_per_mask
        for mask in (product.mask_in, product.mask_out)
        if mask is not None and mask.rows_per_mask < rows
    }
    if len(sharing) > 1:
        return 0
    return sharing.pop() if sharing else max(rows, 1)


def choose(product):
    """The method the cost model prefers."""
    rows, depth = product.x.shape
    columns = product.w.shape[1]
    dtype = product.x.dtype
    mask_in, mask_out = product.mask_in, product.mask_out
    if mask_in is None and mask_out is None and not product.skip_zeros:
        return "dense"
    costs = {"dense": dense_cost(rows, depth, columns, dtype)}
    if mask_in is not None or product.skip_zeros:
        shared = mask_in is not None and mask_in.rows_per_mask >= 4 and not product.skip_zeros
        costs["skip"] = skip_cost(rows, depth, columns, dtype, product.density(), shared)
    group = groups_of(product)
    if group >= 4 and (mask_in is not None or mask_out is not None):
        costs["compact"] = compact_cost(
            rows,
            depth,
            columns,
            dtype,
            depth * (1.0 if mask_in is None else mask_in.density),
            columns * (1.0 if mask_out is None else mask_out.density),
            -(-rows // group),
        )
    return cheapest(**costs)


def _skip(p):
    in_bits, in_rows = (None, 1) if p.mask_in is None else p.mask_in[:2]
    out_bits, out_rows = (None, 1) if p.mask_out is None else p.mask_out[:2]
    kernels.skip_matmul(
        rows_contiguous(p.x), False, in_bits, in_rows, p.skip_zeros, p.w, p.scale, p.bias,
        p.bias_scale, out_bits, out_rows, p.out,
    )  # fmt: skip


def _dense(p):
    x = p.x
    if p.mask_in is not None:
        x = numpy.empty(p.x.shape, p.x.dtype)
        kernels.apply_mask(p.x, p.mask_in.bits, p.mask_in.shape, p.mask_in.rows_per_mask, 1.0, x)
    numpy.matmul(x, p.w, out=p.out)
    if p.mask_in is not None and not math.isfinite(p.out.sum()):
        # Infinity or NaN in w may have met a dropped element's zero, which is no product at all.
        _skip(p)
        return
    one = p.out.dtype.type
    if p.scale != 1:
        numpy.multiply(p.out, one(p.scale), out=p.out)
    if p.bias is not None:
        numpy.add(p.out, p.bias * one(p.bias_scale), out=p.out)
    if p.mask_out is not None:
        mask = p.mask_out
        kernels.apply_mask(p.out, mask.bits, mask.shape, mask.rows_per_mask, 1.0, p.out)


def _compact(p):
    """Group by group: every group of rows has its own units."""
    group = groups_of(p)
    if not group:
        raise ValueError(
            "method 'compact' needs masks shared by the same groups of rows; use 'auto' or 'skip'"
        )
    rows = p.x.shape[0]
    for start in range(0, rows, group):
        _compact_group(p, slice(start, min(start + group, rows)), *_units(p, start))


def _units(p, row):
    """Bits and bit offset of the units of a row, for both masks."""
    units = []
    for mask in (p.mask_in, p.mask_out):
        if mask is None:
            units.append((None, 0))
        else:
            units.append((mask.bits, row // mask.rows_per_mask * mask.width))
    return units


def active_units(units, width):
    """Number of units whose bits are set; units are (bits, offset)."""
    bits, offset = units
    if bits is None:
        return width
    first = offset >> 3
    last = -(-(offset + width) // 8)
    row = numpy.unpackbits(bits[first:last], bitorder="little")
    return int(numpy.count_nonzero(row[offset & 7 : (offset & 7) + width]))


def _compact_group(p, rows, units_in, units_out):
    x, out = p.x[rows], p.out[rows]
    dtype = x.dtype
    depth, columns = p.w.shape
    active_in, active_out = active_units(units_in, depth), active_units(units_out, columns)
    n = x.shape[0]
    x = gathered_columns("x", x, units_in, active_in)
    w = gathered("w", p.w, units_in, units_out, (active_in, active_out))
    y = numpy.matmul(x, w, out=buffer("y", (n, active_out), dtype))
    kernels.scatter(y, None, 0, *units_out, p.scale, p.bias, p.bias_scale, False, out)


def gathered_columns(name, x, units, active):
    """The active columns of a matrix, in a work array; x itself where all are."""
    if units[0] is None:
        return x
    out = buffer(name, (x.shape[0], active), x.dtype)
    kernels.gather(rows_contiguous(x), None, 0, *units, out)
    return out


def gathered(name, w, units_in, units_out, active):
    """The active rows and columns of w, in a work array laid out like w; w itself if all are."""
    if units_in[0] is None and units_out[0] is None:
        return w
    if w.strides[1] == w.itemsize or w.shape[1] <= 1:
        out = buffer(name, active, w.dtype)
        kernels.gather(w, *units_in, *units_out, out)
        return out
    out = buffer(name, active[::-1], w.dtype)
    kernels.gather(w.T, *units_out, *units_in, out)
    return out.T


def multiply_transposed(x, grad, out, mask_in, mask_out, scale, skip_zeros, method):
    """out = (m_in ∘ x).T @ (m_out ∘ grad) * scale: the gradient of the weights.

    x is (rows, depth), grad (rows, columns), out (depth, columns).
    """
    p = Product(x, one_axis_contiguous(grad), out, mask_in, mask_out, scale, None, 1.0, skip_zeros)
    if method == "auto":
        method = _choose_transposed(p)
    if method == "compact" and groups_of(p):
        _compact_transposed(p)
        return
    if mask_out is not None:
        p.w = numpy.empty(grad.shape, grad.dtype)
        kernels.apply_mask(grad, mask_out.bits, mask_out.shape, mask_out.rows_per_mask, 1.0, p.w)
    if method == "skip":
        _skip_transposed(p)
        return
    if mask_in is not None:
        kept = numpy.empty(x.shape, x.dtype)
        kernels.apply_mask(x, mask_in.bits, mask_in.shape, mask_in.rows_per_mask, 1.0, kept)
        x = kept
    numpy.matmul(x.T, p.w, out=out)
    if (mask_in is not None or mask_out is not None) and not math.isfinite(out.sum()):
        _skip_transposed(p)  # a dropped element's zero may have met infinity
    elif scale != 1:
        numpy.multiply(out, out.dtype.type(scale), out=out)


def _skip_transposed(p):
    bits, rows = (None, 1) if p.mask_in is None else p.mask_in[:2]
    kernels.skip_matmul(
        rows_contiguous(p.x).T, True, bits, rows, p.skip_zeros, p.w, p.scale, None, 1.0, None, 1,
        p.out,
    )  # fmt: skip


def _choose_transposed(p):
    rows, depth = p.x.shape
    columns = p.w.shape[1]
    dtype = p.x.dtype
    if p.mask_in is None and p.mask_out is None and not p.skip_zeros:
        return "dense"
    costs = {"dense": dense_cost(depth, rows, columns, dtype)}
    if p.mask_in is not None or p.skip_zeros:
        costs["skip"] = skip_cost(depth, rows, columns, dtype, p.density(), False)
    group = groups_of(p)
    if group >= 4 and (p.mask_in is not None or p.mask_out is not None):
        costs["compact"] = compact_cost(
            depth,
            rows,
            columns,
            dtype,
            group * (1.0 if p.mask_in is None else p.mask_in.density),
            columns * (1.0 if p.mask_out is None else p.mask_out.density),
            -(-rows // group),
        )
    return cheapest(**costs)


def _compact_transposed(p):
    rows = p.x.shape[0]
    group = groups_of(p)
    several = rows > group or rows == 0
    if several:
        p.out[...] = 0
    for start in range(0, rows, group):
        part = slice(start, min(start + group, rows))
        units_in, units_out = _units(p, start)
        active_in = active_units(units_in, p.x.shape[1])
        active_out = active_units(units_out, p.w.shape[1])
        x = gathered_columns("x", p.x[part], units_in, active_in)
        grad = gathered_columns("y", p.w[part], units_out, active_out)
        product = numpy.matmul(x.T, grad, out=buffer("w", (active_in, active_out), x.dtype))
        kernels.scatter(product, *units_in, *units_out, p.scale, None, 1.0, several, p.out)
