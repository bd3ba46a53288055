"""The family of dropouts: the references of its kernels.

References
----------
.. [4] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
   NeurIPS 2017, section 4.
.. [5] G. Ghiasi, T.-Y. Lin, Q. V. Le, "DropBlock: a regularization method for convolutional
   networks", NeurIPS 2018, section 3.
.. [6] A. Vaswani et al., "Attention is all you need", NeurIPS 2017, sections 3.2.1 and 5.4.
"""

import itertools
import math
from typing import Any

import numpy

from fastdrop.reference.bfloat16 import bfloat16_of, float32_of
from fastdrop.reference.bits import Array, Shape, unpacked

__all__ = [
    "apply_affine",
    "drop_blocks",
    "residual_backward",
    "residual_forward",
    "softmax_backward",
    "softmax_forward",
]


def apply_affine(
    x: Array,
    bits: Array,
    mask_shape: Shape,
    rows_per_mask: int,
    scale: float,
    shift: float,
    dropped: float,
    out: Array,
) -> None:
    """Write ``x * scale + shift`` where the mask keeps and `dropped` where it drops [4]_.

    Each step is rounded once, in the dtype of `x`; for float16 and bfloat16 in float32, and the
    result once more.

    Parameters
    ----------
    x, bits, mask_shape, rows_per_mask, out
        As for `apply_mask`.
    scale, shift, dropped : float

    Examples
    --------
    >>> x = numpy.array([1.0, 2.0, numpy.nan])
    >>> apply_affine(x, numpy.array([0b011], numpy.uint8), (3,), 1, 2.0, 0.5, -1.0, x)
    >>> x
    array([ 2.5,  4.5, -1. ])
    """
    kept = unpacked(bits, math.prod(mask_shape)).reshape(mask_shape)
    if rows_per_mask > 1:
        kept = numpy.repeat(kept, rows_per_mask, axis=0)[: x.shape[0]]
    wide = _widened(x)
    number = wide.dtype.type
    with numpy.errstate(all="ignore"):
        values = wide * number(scale) + number(shift)
        _narrowed(numpy.where(kept, values, number(dropped)) + number(0), out)


def residual_forward(
    x: Array, bias: Array | None, residual: Array, bits: Array | None, scale: float, out: Array
) -> None:
    """Write ``residual + dropout(x + bias)``: the end of a block with a residual connection.

    Parameters
    ----------
    x, residual, out : numpy.ndarray, C-contiguous, of one shape and dtype
        `out` may be either of the others.
    bias : numpy.ndarray or None, shape of the last axis of `x`
    bits : numpy.ndarray of uint8 or None
        One for each element; None keeps all.
    scale : float
        Rounded to the dtype of `x`. Each step is rounded as those of `apply_affine`.

    Examples
    --------
    >>> x, residual = numpy.array([[1.0, 2.0]]), numpy.array([[10.0, 20.0]])
    >>> bits = numpy.array([0b01], numpy.uint8)
    >>> residual_forward(x, numpy.array([0.5, 0.5]), residual, bits, 2.0, x)
    >>> x
    array([[13., 20.]])
    """
    with numpy.errstate(all="ignore"):
        values = _widened(x)
        if bias is not None:
            values = values + _widened(bias)
        values = _selected(values * _factor(scale, x.dtype), bits)
        _narrowed(values + _widened(residual), out)


def residual_backward(
    grad: Array, bits: Array | None, scale: float, out: Array, sums: Array
) -> None:
    """Write the gradient under the mask, and the sums of its columns, the bias' gradient.

    Parameters
    ----------
    grad, out : numpy.ndarray, C-contiguous, of one shape and dtype
        `out` may be `grad`.
    bits, scale
        As for `residual_forward`.
    sums : numpy.ndarray of float64, shape of the last axis of `grad`

    Examples
    --------
    >>> grad, sums = numpy.ones((3, 2)), numpy.empty(2)
    >>> residual_backward(grad, numpy.array([0b011101], numpy.uint8), 2.0, grad, sums)
    >>> grad.tolist(), sums
    ([[2.0, 0.0], [2.0, 2.0], [2.0, 0.0]], array([6., 2.]))
    """
    with numpy.errstate(all="ignore"):
        values = _selected(_widened(grad) * _factor(scale, grad.dtype), bits)
        width = grad.shape[-1] if grad.ndim else 1
        sums[...] = values.reshape(-1, width).sum(axis=0, dtype=numpy.float64) if width else 0
        _narrowed(values, out)


def softmax_forward(
    x: Array,
    attend: Array | None,
    attend_starts: Array | None,
    causal: int,
    bits: Array | None,
    scale: float,
    probabilities: Array,
    out: Array,
) -> None:
    """Write the softmax of each row of scores, and what dropout leaves of it [6]_.

    Parameters
    ----------
    x : numpy.ndarray of float32 or float64, C-contiguous, shape (..., width)
        Scores; rows are counted in C order.
    attend : numpy.ndarray of uint8 or None
        Packed bits: row i attends to the columns whose bit, from bit ``attend_starts[i]`` on, is
        set. None: to all.
    attend_starts : numpy.ndarray of int64 or None, shape (rows,)
    causal : int
        Row i attends to columns up to ``i % causal`` only; 0: to all.
    bits, scale
        As for `residual_forward`.
    probabilities, out : numpy.ndarray
        Like `x`; either may be `x`, or where nothing is dropped the other. The probabilities are 0
        where a row does not attend, all of them where it attends to nothing but ``-inf``.

    Examples
    --------
    >>> x = numpy.zeros((2, 2))
    >>> p, y = numpy.empty((2, 2)), numpy.empty((2, 2))
    >>> softmax_forward(x, None, None, 2, numpy.array([0b0111], numpy.uint8), 2.0, p, y)
    >>> p.tolist(), y.tolist()
    ([[1.0, 0.0], [0.5, 0.5]], [[2.0, 0.0], [1.0, 0.0]])
    """
    if not x.size:
        return
    width = x.shape[-1] if x.ndim else 1
    scores = x.reshape(-1, width)
    rows, columns = numpy.arange(len(scores))[:, None], numpy.arange(width)
    allowed = numpy.ones(scores.shape, bool)
    if attend is not None and attend_starts is not None:
        every = numpy.unpackbits(attend, bitorder="little").view(bool)
        allowed &= every[attend_starts[:, None] + columns]
    if causal:
        allowed &= columns <= rows % causal
    with numpy.errstate(all="ignore"):
        scores = numpy.where(allowed, scores, -numpy.inf)
        most = scores.max(axis=1, keepdims=True)
        powers = numpy.exp(scores - numpy.where(numpy.isneginf(most), 0, most))
        sums = powers.sum(axis=1, keepdims=True)
        shares = powers / numpy.where(sums == 0, 1, sums)
        shares = numpy.where(allowed, shares, 0).reshape(x.shape).astype(x.dtype)
        dropped = _selected(shares * x.dtype.type(scale), bits)
    numpy.copyto(probabilities, shares)
    numpy.copyto(out, dropped)


def softmax_backward(
    grad: Array, probabilities: Array, bits: Array | None, scale: float, out: Array
) -> None:
    """Write the gradient with respect to the scores, from that of the output.

    Parameters
    ----------
    grad, probabilities, out : numpy.ndarray of float32 or float64, C-contiguous, shape (..., width)
        `out` may be `grad`.
    bits, scale
        As for `residual_forward`.

    Examples
    --------
    >>> grad = numpy.array([[1.0, 5.0]])
    >>> softmax_backward(grad, numpy.array([[0.5, 0.5]]), None, 1.0, grad)
    >>> grad
    array([[-1.,  1.]])
    """
    with numpy.errstate(all="ignore"):
        inner = _selected(grad * grad.dtype.type(scale), bits)
        total = (inner * probabilities).sum(axis=-1, keepdims=True)
        numpy.copyto(out, probabilities * (inner - total))


def drop_blocks(seeds: Array, maps: int, extent: Shape, block: Shape, bits: Array) -> int:
    """Write the bits of places that no block covers, and return how many there are [5]_.

    Parameters
    ----------
    seeds : numpy.ndarray of uint8
        Packed bits of `maps` arrays of ``extent - block + 1`` places along each axis: where a block
        of `block` places begins.
    maps : int
    extent, block : tuple of int, 3 each
        Of a map, and of a block, ``1 <= block <= extent``; of both 1 along axes that are not there.
    bits : numpy.ndarray of uint8
        Receives those of `maps` arrays of `extent` places.

    Examples
    --------
    >>> bits = numpy.empty(1, numpy.uint8)
    >>> drop_blocks(numpy.array([0b0010], numpy.uint8), 1, (1, 1, 6), (1, 1, 3), bits)
    3
    >>> numpy.unpackbits(bits, count=6, bitorder="little")
    array([1, 0, 0, 0, 1, 1], dtype=uint8)
    """
    starts = tuple(whole - part + 1 for whole, part in zip(extent, block, strict=True))
    begun = unpacked(seeds, maps * math.prod(starts)).reshape(maps, *starts)
    kept = numpy.ones((maps, *extent), bool)
    for corner in itertools.product(*map(range, block)):
        covered = tuple(slice(at, at + n) for at, n in zip(corner, starts, strict=True))
        kept[:, *covered] &= ~begun
    bits[...] = numpy.packbits(kept, bitorder="little")
    return int(numpy.count_nonzero(kept))


def _widened(x: Array) -> Array:
    """What is computed with: float32 of the half types, of which uint16 holds bfloat16."""
    if x.dtype == numpy.uint16:
        return float32_of(x)
    return x.astype(numpy.promote_types(x.dtype, numpy.float32), copy=False)


def _narrowed(values: Array, out: Array) -> None:
    """Write what was computed, rounded to the dtype of `out`."""
    numpy.copyto(out, bfloat16_of(values) if out.dtype == numpy.uint16 else values, "same_kind")


def _factor(scale: float, dtype: numpy.dtype[Any]) -> Any:
    """A scale as the dtype rounds it, in the dtype that is computed with."""
    if dtype == numpy.uint16:
        return float32_of(bfloat16_of(scale))
    return numpy.promote_types(dtype, numpy.float32).type(dtype.type(scale))


def _selected(values: Array, bits: Array | None) -> Array:
    """Zeros where bits drop."""
    if bits is None:
        return values
    kept = unpacked(bits, values.size).reshape(values.shape)
    return numpy.where(kept, values, values.dtype.type(0))
