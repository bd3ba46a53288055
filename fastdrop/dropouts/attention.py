"""Softmax and dropout of attention scores, in one pass."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy
from numpy.typing import ArrayLike, DTypeLike

from fastdrop._backend import kernels
from fastdrop.arguments import as_array, keep_probability
from fastdrop.dropouts.given import check_given, flat_bits, result_array, written
from fastdrop.functional import float_array
from fastdrop.mask import Mask
from fastdrop.refusal import NoArithmetic
from fastdrop.stream import RandomSource, as_stream
from fastdrop.types import Array, Shape

__all__ = ["softmax_dropout", "softmax_dropout_backward"]


def softmax_dropout(
    x: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    attend: ArrayLike | None = None,
    causal: bool = False,
    training: bool = True,
    out: Array | None = None,
) -> "SoftmaxAndMask":
    """Drop elements of the softmax of each row, as attention does, in one pass.

    ``y = dropout(softmax(x))`` along the last axis [1]_; `x` are the scores of the queries (rows)
    and keys (columns).

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (..., queries, keys)
    rate, keep_prob : float
        Probability that a weight is dropped, or kept, in [0, 1]; exactly one of the two.
    rng : optional
        As for `dropout`.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    attend : array_like of bool, optional
        True where a query may attend to a key; broadcasts to the shape of `x`.
    causal : bool, optional
        Query i attends to keys 0 to i only, beside what `attend` says.
    training : bool, optional
        False: nothing is drawn; the softmax, with None for the mask.
    out : numpy.ndarray, optional
        Where the result goes; `x` itself, or an array that does not overlap it.

    Returns
    -------
    y : numpy.ndarray, shape and dtype of `x`
    mask : Mask or None
    probabilities : numpy.ndarray, shape and dtype of `x`
        The softmax, which `softmax_dropout_backward` needs; `y` itself where nothing was dropped.
        Exactly 0 where a query does not attend; all of them for a query without any score but
        ``-inf``, where others give NaN.

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If `attend` does not broadcast to `x`, or an argument is out of its range.

    Notes
    -----
    Exponentials are right to two units in the last place, and 0 below the smallest normal number.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.1.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> scores = numpy.zeros((3, 3))
    >>> y, mask, probabilities = fastdrop.softmax_dropout(scores, 0.5, rng=0, causal=True)
    >>> probabilities.round(2)
    array([[1.  , 0.  , 0.  ],
           [0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]])
    >>> mask.to_array(int)
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 0, 0]])
    """
    x = float_array(x, "x")
    if causal and x.ndim < 2:
        raise ValueError(f"x must have axes of queries and keys to be causal, got {x.ndim} axes")
    if attend is not None:
        attend = _attended(attend, x.shape)
    bits, scale, dropping = None, 1.0, True
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
        bits = flat_bits(mask, x.shape)
        y = result_array(out, x)
    else:
        keep = keep_probability(rate, keep_prob)
        y = result_array(out, x)
        dropping = training and keep < 1
        if training:
            mask = as_stream(rng).draw(x.shape, keep_prob=keep)
            bits = flat_bits(mask, x.shape) if dropping else None
    if mask is not None:
        scale = mask.scale
    wide = _wide(x)
    probabilities: Any = numpy.empty(wide.shape, wide.dtype) if dropping else None
    masks = (*(attend or (None, None)), x.shape[-2] if causal else 0, bits, scale)

    def write(to: Array) -> None:
        both = (probabilities, to) if dropping else (to, to)
        kernels.softmax_forward(wide, *masks, *both)

    _written_wide(y, wide, write)
    if dropping:
        probabilities = probabilities.astype(x.dtype, copy=False)
    return SoftmaxAndMask((y, mask, probabilities if dropping else y))


def softmax_dropout_backward(
    grad_y: ArrayLike,
    probabilities: ArrayLike,
    mask: Mask | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `softmax_dropout` with respect to the scores, in one pass.

    ``p * (g - sum(g * p))`` of each row, where g is `grad_y` under the mask.

    Parameters
    ----------
    grad_y : array_like of float16, float32 or float64, shape (..., queries, keys)
        Gradient with respect to the output.
    probabilities : array_like, shape and dtype of `grad_y`
        As the forward pass returned them.
    mask : Mask or None, optional
        The forward pass's mask; None: nothing was dropped.
    out : numpy.ndarray, optional
        Where the result goes; `grad_y` itself, or an array that does not overlap it.

    Returns
    -------
    numpy.ndarray, shape and dtype of `grad_y`

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If shapes or dtypes do not agree.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> y, mask, p = fastdrop.softmax_dropout(numpy.zeros((1, 4)), 0.5, rng=0)
    >>> fastdrop.softmax_dropout_backward(numpy.array([[1.0, 2.0, 3.0, 4.0]]), p, mask)
    array([[ 0.125,  0.625, -0.375, -0.375]])
    """
    grad_y = float_array(grad_y, "grad_y")
    probabilities = float_array(probabilities, "probabilities")
    if probabilities.shape != grad_y.shape or probabilities.dtype != grad_y.dtype:
        raise ValueError(
            f"probabilities must have shape {grad_y.shape} and dtype {grad_y.dtype} to fit grad_y, "
            f"got {probabilities.shape} and {probabilities.dtype}"
        )
    bits, scale = None, 1.0
    if mask is not None:
        check_given(mask, None, None, None)
        bits, scale = flat_bits(mask, grad_y.shape), mask.scale
    y = result_array(out, grad_y)
    wide, shares = _wide(grad_y), _wide(probabilities)
    _written_wide(y, wide, lambda to: kernels.softmax_backward(wide, shares, bits, scale, to))
    return y


class SoftmaxAndMask(NoArithmetic, tuple[Array, Mask | None, Array]):
    """The triple that `softmax_dropout` returns: a tuple that refuses to be computed with."""

    __slots__ = ()

    _refused = (
        "softmax_dropout returned three things, unpack them first: "
        "y, mask, probabilities = softmax_dropout(...)"
    )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        raise TypeError(self._refused)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> NoReturn:
        raise TypeError(f"numpy.{func.__name__}: {self._refused}")


def _wide(x: Array) -> Array:
    """x as the kernels read it: contiguous, float32 for float16."""
    dtype = numpy.float32 if x.dtype == numpy.float16 else x.dtype
    return numpy.asarray(x, dtype, order="C")


def _written_wide(y: Array, wide: Array, write: Callable[[Array], None]) -> None:
    """Have a kernel write to y, or to an array of its own dtype that y is made of."""
    if y.dtype.newbyteorder("=") == wide.dtype:
        written(y, write, True)
        return
    direct = numpy.empty(wide.shape, wide.dtype)
    write(direct)
    with numpy.errstate(over="ignore", under="ignore"):
        numpy.copyto(y, direct, "same_kind")


def _attended(attend: ArrayLike, shape: Shape) -> tuple[Array, Array]:
    """Packed bits of where a row attends, and the bit at which each row's begin."""
    attend = as_array(attend, "attend")
    if attend.dtype != bool:
        raise TypeError(f"attend must hold booleans, got dtype {attend.dtype}")
    try:
        numpy.broadcast_shapes(attend.shape, shape)
        whole = numpy.broadcast_to(attend, shape)
    except ValueError:
        raise ValueError(
            f"attend must broadcast to the shape of x, {shape}, got {attend.shape}"
        ) from None
    if not shape:
        return numpy.packbits(whole, bitorder="little"), numpy.zeros(1, numpy.int64)
    # Rows that are the same in memory are packed once: those that `attend` itself has.
    own = attend.reshape((1,) * (len(shape) - attend.ndim) + attend.shape)
    own = numpy.broadcast_to(own, (*own.shape[:-1], shape[-1]))
    rows = numpy.arange(math.prod(own.shape[:-1]), dtype=numpy.int64).reshape(own.shape[:-1])
    starts = numpy.broadcast_to(rows * shape[-1], shape[:-1])
    bits = numpy.packbits(own.reshape(-1), bitorder="little")
    return bits, numpy.ascontiguousarray(starts).reshape(-1)
