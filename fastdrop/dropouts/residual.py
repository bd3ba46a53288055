"""The end of a block with a residual connection: bias, dropout and sum in one pass."""

import numpy
from numpy.typing import ArrayLike

from fastdrop._backend import kernels
from fastdrop.arguments import keep_probability
from fastdrop.dropouts.given import check_given, flat_bits, result_array, written
from fastdrop.functional import dropout_backward, float_array, overlap
from fastdrop.mask import Mask
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource, as_stream
from fastdrop.types import Array, Shape

__all__ = ["bias_dropout_residual", "bias_dropout_residual_backward"]


def bias_dropout_residual(
    x: ArrayLike,
    residual: ArrayLike,
    bias: ArrayLike | None = None,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    training: bool = True,
    out: Array | None = None,
) -> OutputAndMask:
    """Return ``residual + dropout(x + bias)``, computed in one pass.

    This is the end of a transformer's sublayer: `x` is the product without its bias, `residual` the
    input of the sublayer [1]_. NumPy takes three passes for it, and a mask.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (..., units)
    residual : array_like, shape and dtype of `x`
    bias : array_like of the dtype of `x`, shape (units,), optional
    rate, keep_prob : float
        Probability that an element of ``x + bias`` is dropped, or kept; exactly one of the two.
    rng : optional
        As for `dropout`.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    training : bool, optional
        False: nothing is drawn; ``residual + x + bias``, with None for the mask.
    out : numpy.ndarray, optional
        Where the result goes; `x` or `residual` itself, or an array that overlaps neither.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
        Where ``x + bias`` is dropped exactly `residual`.
    mask : Mask or None
        For `bias_dropout_residual_backward`.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If shapes do not agree, or an argument is out of its range.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 5.4 ("Residual
       dropout").

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x, residual = numpy.ones((2, 3)), numpy.full((2, 3), 10.0)
    >>> y, mask = fastdrop.bias_dropout_residual(x, residual, numpy.ones(3), rate=0.5, rng=0)
    >>> y
    array([[14., 14., 10.],
           [10., 14., 10.]])
    """
    x = numpy.ascontiguousarray(float_array(x, "x")) if numpy.ndim(x) else float_array(x, "x")
    residual = _like(residual, x, x.shape, "residual")
    if bias is not None:
        if not x.ndim:
            raise ValueError("x must have an axis of units where there is a bias, got 0 axes")
        bias = _like(bias, x, x.shape[-1:], "bias")
    bits, scale = None, 1.0
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
        bits = flat_bits(mask, x.shape)
        y = result_array(out, x)
    else:
        keep = keep_probability(rate, keep_prob)
        y = result_array(out, x)
        if training:
            mask = as_stream(rng).draw(x.shape, keep_prob=keep)
            bits = flat_bits(mask, x.shape)
    if mask is not None:
        scale = mask.scale
    same = y.flags.c_contiguous and y.ctypes.data == residual.ctypes.data
    if not same and overlap(y, residual):
        raise ValueError("out must be residual itself or not overlap it, it overlaps in part")
    written(y, lambda to: kernels.residual_forward(x, bias, residual, bits, scale, to), True)
    return OutputAndMask((y, mask))


def bias_dropout_residual_backward(
    grad_y: ArrayLike, mask: Mask | None, *, bias: bool = True, out: Array | None = None
) -> tuple[Array, Array | None]:
    """Return the gradients of `bias_dropout_residual` with respect to `x` and `bias`, in one pass.

    That with respect to `residual` is `grad_y` itself.

    Parameters
    ----------
    grad_y : array_like of float16, float32 or float64, shape (..., units)
    mask : Mask or None
        The forward pass's mask; None: nothing was dropped.
    bias : bool, optional
        Whether there was one.
    out : numpy.ndarray, optional
        Where the gradient of `x` goes; not `grad_y`, if that is still to be added further on.

    Returns
    -------
    grad_x : numpy.ndarray, shape and dtype of `grad_y`
    grad_bias : numpy.ndarray of the dtype of `grad_y`, shape (units,), or None without a bias
        Sums of the columns of `grad_x`, added up in float64.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If `mask` does not fit `grad_y`.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> mask = fastdrop.Mask.from_array([[1, 0], [1, 1]], keep_prob=0.5)
    >>> grad_x, grad_bias = fastdrop.bias_dropout_residual_backward(numpy.ones((2, 2)), mask)
    >>> grad_x.tolist(), grad_bias
    ([[2.0, 0.0], [2.0, 2.0]], array([4., 2.]))
    """
    grad_y = float_array(grad_y, "grad_y")
    if not bias:
        return dropout_backward(grad_y, mask, out=out), None
    if not grad_y.ndim:
        raise ValueError("grad_y must have an axis of units where there is a bias, got 0 axes")
    grad_y = numpy.ascontiguousarray(grad_y)
    bits, scale = None, 1.0
    if mask is not None:
        check_given(mask, None, None, None)
        bits, scale = flat_bits(mask, grad_y.shape), mask.scale
    sums = numpy.empty(grad_y.shape[-1])
    grad_x = result_array(out, grad_y)
    written(grad_x, lambda to: kernels.residual_backward(grad_y, bits, scale, to, sums), True)
    with numpy.errstate(over="ignore"):
        return grad_x, sums.astype(grad_y.dtype)


def _like(array: ArrayLike, x: Array, shape: Shape, name: str) -> Array:
    """An argument of the dtype of x and a shape, contiguous."""
    array = float_array(array, name)
    if array.dtype != x.dtype or array.shape != shape:
        raise ValueError(
            f"{name} must have shape {shape} and dtype {x.dtype} to fit x, got {array.shape} and "
            f"{array.dtype}"
        )
    return numpy.asarray(array, order="C")
