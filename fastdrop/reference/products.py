"""Masked matrix products: the references of the kernels.

Nothing here multiplies by a mask. A sum runs over the elements that are kept, so that a dropped
one, be it NaN, does not take part, nor does what it would have been multiplied by. Infinities and
NaN that do take part give what they give, without warnings, as in the compiled kernels. Arguments
that recur:

rows, columns : tuple of (numpy.ndarray of uint8, int), or None
    The packed bits of the active rows and columns of a matrix, and at which bit the first one
    stands; None: all are active.
scale, bias_scale : float
    Rounded to the arrays' dtype before they are multiplied by.

References
----------
.. [3] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
   submatrices", arXiv 1502.02478 (2015).
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy

from fastdrop.reference.bits import Array, Shape, Units, unpacked

__all__ = [
    "Product",
    "gather",
    "masked_sums",
    "matmul",
    "plain_operands",
    "plan",
    "scatter",
    "surely_apart",
]


def gather(x: Array, rows: Units, columns: Units, out: Array) -> None:
    """Copy the active rows and columns of a matrix to a smaller one [3]_.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, columns)
        Its last axis is contiguous.
    out : numpy.ndarray, C-contiguous, shape (active rows, active columns)

    Examples
    --------
    >>> x, out = numpy.arange(6.0).reshape(2, 3), numpy.empty((1, 2))
    >>> rows, columns = numpy.array([[0b10], [0b1010]], dtype=numpy.uint8)
    >>> gather(x, (rows, 0), (columns, 1), out)
    >>> out
    array([[3., 5.]])
    """
    out[...] = x[active_places(x.shape, rows, columns)]


@numpy.errstate(all="ignore")
def scatter(
    x: Array,
    rows: Units,
    columns: Units,
    out: Array,
    *,
    scale: float = 1.0,
    bias: Array | None = None,
    bias_scale: float = 1.0,
    accumulate: bool = False,
) -> None:
    """Put a small matrix back in the active rows and columns of a large one: `gather`'s reverse.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, C-contiguous, shape (active rows, active columns)
    bias : numpy.ndarray, shape (columns,), or None
        One number for every column of `out`, of which the active ones are used.
    accumulate : bool
        False: `out` becomes ``x * scale + bias * bias_scale`` where active and ``+0.0``
        elsewhere. True: ``x * scale`` is added where active, and the rest stays; no bias then.
    out : numpy.ndarray, shape (rows, columns)
        Its last axis is contiguous.

    Examples
    --------
    >>> out, columns = numpy.ones((2, 3)), numpy.array([0b101], dtype=numpy.uint8)
    >>> scatter(numpy.array([[3.0, 5.0]]), (columns, 1), (columns, 0), out, scale=2.0)
    >>> out
    array([[ 0.,  0.,  0.],
           [ 6.,  0., 10.]])
    """
    if accumulate and bias is not None:
        raise ValueError(f"bias must be None where accumulate is true, got shape {bias.shape}")
    active = active_places(out.shape, rows, columns)
    result = x * x.dtype.type(scale)
    if accumulate:
        out[active] += result
        return
    if bias is not None:
        result += bias[active[1]] * x.dtype.type(bias_scale)
    out[...] = 0
    out[active] = result


class Product:
    """One matrix product: ``c = mask_c ∘ ((mask_a ∘ a) @ b + bias)``.

    With `sum_rows` it is a gradient of weights, a sum over the rows of a batch:
    ``c = mask_c ∘ ((mask_a ∘ a.T).T @ (mask_b ∘ b))``, where `mask_a` is about the rows of ``a.T``.
    Weights may have a mask of their own, which `b` has in a product, `c` in a gradient.

    Parameters
    ----------
    a, b, c : numpy.ndarray of float32 or float64, shapes (m, k), (k, n) and (m, n)
        `c` becomes the result. Its rows are contiguous, and it overlaps nothing. Other operands
        may have any layout.
    mask_a, mask_b, mask_c : object or None
        Masks of rows, with ``bits`` (packed), ``rows_per_mask`` (row i uses row
        ``i // rows_per_mask`` of them), ``scale``, by which what is kept is multiplied, and
        ``keep_prob``, the share that is kept or None.
    bias : numpy.ndarray, shape (n,), or None
    skip_zeros : bool
        Zeros of `a` are left out like dropped elements, which makes a difference where their
        partner in `b` is infinite or NaN.
    fused : bool
        What `mask_a` and `mask_b` drop is 0 already, what they keep is scaled, and what `mask_c`
        drops nobody reads: masks say where a product may save work. None of them is one of weights.
    columns_of_b : bool
        `mask_b` is about the rows of ``b.T``: `b` are weights transposed.
    nonzeros : float
        Share of the elements of `a` that are not 0; negative where nobody knows.
    method : {"auto", "compact", "skip", "dense", "packed", "small"}
        "packed" and "small" multiply everything, as "dense" does, but not in NumPy's BLAS. Where
        `b` are masked weights it is "auto", "dense" or "packed".
    """

    def __init__(
        self,
        a: Array,
        b: Array,
        c: Array,
        *,
        mask_a: Any = None,
        mask_b: Any = None,
        mask_c: Any = None,
        bias: Array | None = None,
        skip_zeros: bool = False,
        sum_rows: bool = False,
        fused: bool = False,
        columns_of_b: bool = False,
        nonzeros: float = -1.0,
        method: str = "auto",
    ) -> None:
        shapes = [x.shape for x in (a, b, c)]
        (m, k), (_, n) = shapes[:2]
        if shapes != [(m, k), (k, n), (m, n)]:
            raise ValueError(f"a, b and c must have shapes (m, k), (k, n), (m, n), got {shapes}")
        if fused and (mask_c if sum_rows else mask_b) is not None:
            raise ValueError("a fused product has no mask of weights")
        if mask_b is not None and not sum_rows and method not in ("auto", "dense", "packed"):
            raise ValueError(f"method {method!r} takes no mask of weights; use 'auto' or 'dense'")
        self.a, self.b, self.c, self.bias = a, b, c, bias
        self.mask_a, self.mask_b, self.mask_c = mask_a, mask_b, mask_c
        self.skip_zeros, self.sum_rows, self.fused = skip_zeros, sum_rows, fused
        self.columns_of_b, self.nonzeros, self.method = columns_of_b, nonzeros, method

    def kept(self, mask: Any, shape: Shape) -> Array:
        """Which elements of a matrix a mask of its rows keeps."""
        if mask is None:
            return numpy.ones(shape, bool)
        return kept_elements(mask.bits, shape, mask.rows_per_mask)

    def scale(self, *masks: Any) -> Any:
        """The product of the scales of masks, 1 where there are none."""
        scales = [1.0 if mask is None or self.fused else mask.scale for mask in masks]
        return self.a.dtype.type(math.prod(scales))


@numpy.errstate(all="ignore")  # the compiled kernels say nothing, either
def matmul(product: Product) -> int:
    """Compute a `Product`: sums run over what is kept, and nothing is multiplied by a mask.

    Returns
    -------
    int
        Multiply-adds: of "compact", those between kept rows and columns of every group of rows
        [3]_; of "skip" and "auto", those of elements of `a` that take part; of the others, all.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> a, out = numpy.array([[1.0, numpy.nan], [0.0, 3.0]]), numpy.empty((2, 2))
    >>> kept = numpy.array([0b1101], dtype=numpy.uint8)
    >>> mask = SimpleNamespace(bits=kept, rows_per_mask=1, scale=2.0, keep_prob=None)
    >>> matmul(Product(a, numpy.eye(2), out, mask_a=mask, skip_zeros=True))
    4
    >>> out
    array([[2., 0.],
           [0., 6.]])
    """
    p = product
    (m, k), n = p.a.shape, p.b.shape[1]
    kept_a = p.kept(p.mask_a, (k, m)).T if p.sum_rows else p.kept(p.mask_a, (m, k))
    kept_b = p.kept(p.mask_b, (n, k)).T if p.columns_of_b else p.kept(p.mask_b, (k, n))
    kept_c = p.kept(p.mask_c, (m, n))
    stored = kept_a & (p.a != 0) if p.skip_zeros else kept_a
    count = {"skip": int(stored.sum()) * n, "compact": _of_groups(p, kept_a, kept_b, kept_c)}
    sums = p.a @ p.b if p.fused else sums_of_stored(p.a, stored, p.b, kept_b)
    result = sums * p.scale(p.mask_a, p.mask_b, p.mask_c)
    if p.bias is not None:
        result += p.bias * p.scale(p.mask_c)
    p.c[...] = result if p.fused else numpy.where(kept_c, result, 0)
    return int(count.get("skip" if p.method == "auto" else p.method, m * n * k))


def plan(product: Product) -> str:
    """Return what "auto" stands for, "skip": these sums leave out what is dropped."""
    return "skip" if product.method == "auto" else product.method


def _of_groups(p: Product, kept_a: Array, kept_b: Array, kept_c: Array) -> int:
    """Multiply-adds of kept units: for every row that masks are about, those of both its sides."""
    second = p.mask_b if p.sum_rows else p.mask_c
    rows = max(p.a.shape[1] if p.sum_rows else p.a.shape[0], 1)
    groups = {min(mask.rows_per_mask, rows) for mask in (p.mask_a, second) if mask is not None}
    if len(groups - {rows}) > 1 and p.method == "compact":
        raise ValueError(
            "method 'compact' needs masks shared by the same groups of rows; use 'auto' or 'skip'"
        )
    sides = (kept_a.T, kept_b) if p.sum_rows else (kept_a, kept_c)
    return int((sides[0].sum(axis=1) * sides[1].sum(axis=1)).sum())


@numpy.errstate(all="ignore")
def masked_sums(x: Array, mask: Any, out: Array) -> None:
    """Sum the columns of a matrix, of what a mask keeps: the gradient of a bias.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, shape (rows, columns)
    mask : object or None
        As for `Product`.
    out : numpy.ndarray, C-contiguous, shape (columns,)
        Becomes the sums times the mask's scale.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> x, bits = numpy.array([[1.0, numpy.nan], [3.0, 4.0]]), numpy.array([0b1101], numpy.uint8)
    >>> mask, out = SimpleNamespace(bits=bits, rows_per_mask=1, scale=10.0), numpy.empty(2)
    >>> masked_sums(x, mask, out)
    >>> out
    array([40., 40.])
    """
    if mask is None:
        x.sum(axis=0, out=out)
        return
    kept = kept_elements(mask.bits, x.shape, mask.rows_per_mask)
    numpy.multiply(numpy.where(kept, x, 0).sum(axis=0), x.dtype.type(mask.scale), out=out)


def surely_apart(results: Iterable[Array], operands: Iterable[Array]) -> bool:
    """Whether all arrays lie in one piece and no result shares memory with another array.

    False means that it was not found out in the little time there is.

    Parameters
    ----------
    results, operands : tuple of numpy.ndarray

    Examples
    --------
    >>> x = numpy.zeros(4)
    >>> surely_apart((x[:2],), (x[2:],)), surely_apart((x[:3],), (x[2:],))
    (True, False)
    """
    arrays = (*results, *operands)
    if not all(type(array) is numpy.ndarray and array.flags.forc for array in arrays):
        return False
    pairs = itertools.combinations(results, 2)
    return not any(
        numpy.may_share_memory(*pair) for pair in (*pairs, *itertools.product(results, operands))
    )


def plain_operands(x: Array, w: Array, out: Array) -> bool:
    """Return False: nobody is in such a hurry here that checks had to be left out.

    The compiled module says whether `x`, `w` and `out` (or None) are C-contiguous matrices of one
    dtype that fit, `out` writeable and apart from the others.

    Examples
    --------
    >>> plain_operands(numpy.ones((2, 3)), numpy.ones((3, 4)), None)
    False
    """
    return False


def active_places(shape: Shape, rows: Units, columns: Units) -> Any:
    """The index of the active rows and columns of a matrix."""
    axes = zip(shape, (rows, columns), ("rows", "columns"), strict=True)
    return numpy.ix_(
        *(
            numpy.arange(n)
            if units is None
            else numpy.flatnonzero(unpacked(units[0], n, units[1], name))
            for n, units, name in axes
        )
    )


def kept_elements(
    bits: Array | None, shape: Shape, rows_per_mask: int, name: str = "bits"
) -> Array:
    """Which elements of a matrix a packed mask keeps, rows that share one written out."""
    if bits is None:
        return numpy.ones(shape, dtype=bool)
    mask_shape = (-(-shape[0] // rows_per_mask), shape[1])
    mask = unpacked(bits, math.prod(mask_shape), name=name).reshape(mask_shape)
    return mask[numpy.arange(shape[0]) // rows_per_mask]


def sums_of_stored(x: Array, stored: Array, w: Array, kept: Array | None = None) -> Array:
    """Return ``x @ w``, sums running over stored elements of x and kept ones of w (None: all)."""
    if kept is not None and not kept.all():
        result = numpy.zeros((x.shape[0], w.shape[1]), dtype=x.dtype)
        for of_x, of_w, column, row in zip(stored.T, kept, x.T, w, strict=True):
            result[numpy.ix_(of_x, of_w)] += numpy.multiply.outer(column[of_x], row[of_w])
        return result
    if stored.all():
        return x @ w
    result = numpy.zeros((x.shape[0], w.shape[1]), dtype=x.dtype)
    for row, elements, total in zip(x, stored, result, strict=True):
        numpy.matmul(row[elements], w[elements], out=total)
    return result
