"""What the public products mean, said in NumPy."""

import math
from typing import Any

import numpy
from numpy.typing import DTypeLike

from fastdrop.reference.bits import Array, Shape
from fastdrop.reference.products import sums_of_stored

__all__ = ["masked_matmul", "masked_matmul_backward"]


@numpy.errstate(all="ignore")
def masked_matmul(
    x: Array,
    w: Array,
    *,
    mask_in: Any = None,
    mask_out: Any = None,
    mask_weight: Any = None,
    bias: Array | None = None,
    skip_zeros: bool = False,
    method: str = "auto",
    out: Array | None = None,
    dtype: DTypeLike | None = None,
) -> Array:
    """Say what `fastdrop.masked_matmul` computes: ``s_out m_out ∘ ((s_in m_in ∘ x) @ w + bias)``.

    With `mask_weight`, ``s_w m_w ∘ w`` stands in the place of w. Row by row, the sums run over what
    masks keep. The arguments are those of the public function;
    `method` changes nothing here, and neither does `skip_zeros` where `w` is finite.

    Parameters
    ----------
    dtype : dtype, optional
        In which everything is computed, and the result's: float64 shows how far rounding is from
        the truth. The dtype of `x` if not given.

    Returns
    -------
    numpy.ndarray, shape (..., units_out)

    Examples
    --------
    >>> import fastdrop
    >>> mask = fastdrop.Mask.from_array([[True, False]], keep_prob=0.5)
    >>> x = numpy.array([[1.0, numpy.nan], [3.0, 4.0]])
    >>> masked_matmul(x, numpy.eye(2), mask_in=mask, bias=numpy.array([0.0, 1.0]))
    array([[2., 1.],
           [6., 1.]])
    """
    dtype = numpy.dtype(x.dtype if dtype is None else dtype)
    result_shape = (*x.shape[:-1], w.shape[1])
    kept_in, scale_in = _written_out(mask_in, x.shape)
    kept_out, scale_out = _written_out(mask_out, result_shape)
    stored = kept_in & (x != 0) if skip_zeros else kept_in
    kept_w, scale_w = _written_out(mask_weight, w.shape)
    a, w = _scaled(_matrix(x), scale_in, dtype), _scaled(w, scale_w, dtype)
    sums = sums_of_stored(a, _matrix(stored), w, kept_w)
    if bias is not None:
        sums += bias.astype(dtype)
    sums = numpy.where(_matrix(kept_out), _scaled(sums, scale_out, dtype), dtype.type(0))
    result = sums.reshape(result_shape)
    if out is None:
        return result
    out[...] = result
    return out


@numpy.errstate(all="ignore")
def masked_matmul_backward(
    grad_y: Array,
    x: Array,
    w: Array,
    *,
    mask_in: Any = None,
    mask_out: Any = None,
    mask_weight: Any = None,
    skip_zeros: bool = False,
    method: str = "auto",
    dtype: DTypeLike | None = None,
) -> tuple[Array, Array, Array]:
    """Say what `fastdrop.masked_matmul_backward` computes.

    With ``g = s_out m_out ∘ grad_y`` and ``a = s_in m_in ∘ x``, the gradients are
    ``s_in m_in ∘ (g @ w.T)``, ``a.T @ g`` and the sum of the rows of ``g``; each sum runs over
    what the masks keep. With `mask_weight`, ``s_w m_w ∘ w`` stands in the place of w, and
    ``s_w m_w ∘ (a.T @ g)`` is its gradient. The arguments are those of the public function and of
    `masked_matmul`.

    Returns
    -------
    grad_x : numpy.ndarray, shape of `x`
    grad_w : numpy.ndarray, shape of `w`
    grad_bias : numpy.ndarray, shape (units_out,)

    Examples
    --------
    >>> x, w = numpy.array([[1.0, 2.0]]), numpy.array([[3.0], [4.0]])
    >>> grad_x, grad_w, grad_bias = masked_matmul_backward(numpy.array([[10.0]]), x, w)
    >>> grad_x.tolist(), grad_w.tolist(), grad_bias.tolist()
    ([[30.0, 40.0]], [[10.0], [20.0]], [10.0])
    """
    dtype = numpy.dtype(x.dtype if dtype is None else dtype)
    kept_in, scale_in = _written_out(mask_in, x.shape)
    kept_out, scale_out = _written_out(mask_out, grad_y.shape)
    stored_in = kept_in & (x != 0) if skip_zeros else kept_in
    stored_out = kept_out & (grad_y != 0) if skip_zeros else kept_out
    kept_in, stored_in, stored_out = map(_matrix, (kept_in, stored_in, stored_out))
    a = _scaled(_matrix(x), scale_in, dtype)
    g = _scaled(_matrix(grad_y), scale_out, dtype)

    kept_w, scale_w = _written_out(mask_weight, w.shape)
    sums = sums_of_stored(g, stored_out, _scaled(w, scale_w, dtype).T, kept_w.T)
    grad_x = _scaled(sums, scale_in, dtype)
    grad_x = numpy.where(kept_in, grad_x, dtype.type(0)).reshape(x.shape)
    grad_w = numpy.zeros(w.shape, dtype)
    for unit, samples in enumerate(stored_in.T):
        products = a[samples, unit, numpy.newaxis] * g[samples]
        grad_w[unit] = numpy.where(stored_out[samples], products, 0).sum(axis=0)
    grad_w = numpy.where(kept_w, _scaled(grad_w, scale_w, dtype), dtype.type(0))
    grad_bias = numpy.where(stored_out, g, dtype.type(0)).sum(axis=0)
    return grad_x, grad_w, grad_bias


def _written_out(mask: Any, shape: Shape) -> tuple[Array, float]:
    """Return which elements of an array a mask keeps, and the mask's scale, 1 without a mask."""
    if mask is None:
        return numpy.ones(shape, dtype=bool), 1.0
    kept = mask.to_array()
    if isinstance(mask.rows_per_mask, int) and mask.rows_per_mask > 1:
        kept = kept[numpy.arange(shape[0]) // min(mask.rows_per_mask, max(shape[0], 1))]
    return numpy.broadcast_to(kept, shape), mask.scale


def _matrix(array: Array) -> Array:
    """An array with its leading axes joined into one."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _scaled(array: Array, scale: float, dtype: numpy.dtype[Any]) -> Array:
    """An array times a scale, both in a dtype."""
    return numpy.asarray(array.astype(dtype) * dtype.type(scale))
