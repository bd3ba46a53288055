"""DropConnect: a mask on the weights of a product, and two ways to predict without one."""

from collections.abc import Callable
from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import contiguous, integer, is_one_of, keep_probability, mask_plan
from fastdrop.dropouts.given import check_given
from fastdrop.dropouts.row_weights import gradients_of_groups, products_of_groups, working
from fastdrop.functional import check_output, float_array
from fastdrop.mask import Mask
from fastdrop.matmul import masked_matmul, masked_matmul_backward, parameter_gradients
from fastdrop.noise import Noise, new_noise
from fastdrop.pair import OutputAndMask
from fastdrop.stream import RandomSource, as_stream, draw_with
from fastdrop.types import Array, RowsPerMask, ScaleAt, Shape

__all__ = [
    "dropconnect",
    "dropconnect_backward",
    "dropconnect_inference",
    "dropconnect_moments",
]


def dropconnect(
    x: ArrayLike,
    w: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    rng: RandomSource = None,
    mask: Mask | None = None,
    rows_per_mask: RowsPerMask = "batch",
    training: bool = True,
    scale_at: ScaleAt = "train",
    out: Array | None = None,
) -> OutputAndMask:
    """Multiply by weights of which some are dropped at random (DropConnect [1]_).

    ``y = x @ (m ∘ w / keep_prob) + bias``, with one bit of the mask m for each weight. Dropout of
    the inputs drops whole rows of w, dropout of the outputs whole columns.

    Parameters
    ----------
    x : array_like of float16, float32 or float64, shape (..., units_in)
    w : array_like, dtype of `x`, shape (units_in, units_out)
    rate, keep_prob : float
        Probability that a weight is dropped, or kept, in [0, 1]; exactly one of the two.
    bias : array_like, dtype of `x`, shape (units_out,), optional
        Is added, and not dropped. (The paper drops biases, too: to do so, give `x` a column of
        ones, and `w` a row of biases.)
    rng : optional
        As for `dropout`: where the mask comes from.
    mask : Mask, optional
        A mask to apply, as this function returned it, in the place of a drawn one; then no rate.
    rows_per_mask : "batch" or int, optional
        "batch": one mask of w for all rows. An int n: n consecutive rows (axis 0) of x have a mask
        of w of their own; with 1, as in the paper, each row. Such masks have as many bits as all
        the masked weights together, and are for small layers.
    training : bool, optional
        False: nothing is drawn; ``y = x @ w + bias``, or with ``scale_at="test"``
        ``keep_prob * (x @ w) + bias``, which are the expectation of y.
    scale_at : "train" or "test", optional
        "train": kept weights are divided by `keep_prob` in training. "test": they stay as they are,
        as in the paper.
    out : numpy.ndarray, dtype of `x`, shape (..., units_out), optional
        Where the result goes; must not overlap the other arguments.

    Returns
    -------
    y : numpy.ndarray, shape (..., units_out)
    mask : Mask or None
        For `dropconnect_backward`: of the shape of `w`, or (groups of rows, units_in, units_out).

    Raises
    ------
    TypeError
        If an argument is of another type, or not exactly one of `rate` and `keep_prob` is given.
    ValueError
        If an argument is out of its range, or shapes do not fit.

    See Also
    --------
    masked_matmul : with `mask_weight`, the product alone, also together with dropped units.
    dropconnect_inference : the paper's prediction.

    References
    ----------
    .. [1] L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks
       using DropConnect", ICML 2013, section 3.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x, w = numpy.ones((2, 3)), numpy.ones((3, 4))
    >>> y, mask = fastdrop.dropconnect(x, w, rate=0.5, rng=0)
    >>> y
    array([[4., 2., 2., 2.],
           [4., 2., 2., 2.]])
    >>> mask.to_array(int)
    array([[1, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 1, 1]])
    >>> y, mask = fastdrop.dropconnect(x, w, rate=0.5, rng=0, rows_per_mask=1)
    >>> mask.shape
    (2, 3, 4)
    """
    x, w, bias = _operands(x, w, bias)
    if not is_one_of(scale_at, ("train", "test")):
        raise ValueError(f'scale_at must be "train" or "test", got {scale_at!r}')
    shape = (*x.shape[:-1], w.shape[1])
    if out is not None:
        check_output(out, shape, x.dtype)
    if mask is not None:
        check_given(mask, rate, keep_prob, rng, training)
        _check_fits(mask, x, w)
    else:
        keep = keep_probability(rate, keep_prob)
        own, every = _mask_of(x, w, rows_per_mask)
        if not training:
            y = _product(x, w, None, bias, keep if scale_at == "test" else 1.0)
            return OutputAndMask((_to(out, y, x.dtype), None))
        mask = as_stream(rng).draw(own, keep_prob=keep, rows_per_mask=every)
        if scale_at == "test":
            mask = mask.with_scale(1.0 if mask.scale else 0.0)
    if mask.ndim == 2 and out is not None and x.dtype.char != "e":
        return OutputAndMask((masked_matmul(x, w, mask_weight=mask, bias=bias, out=out), mask))
    return OutputAndMask((_to(out, _product(x, w, mask, bias), x.dtype), mask))


def dropconnect_backward(
    grad_y: ArrayLike, x: ArrayLike, w: ArrayLike, mask: Mask | None, *, input_gradient: bool = True
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `dropconnect`.

    Parameters
    ----------
    grad_y : array_like, dtype of `x`, shape (..., units_out)
        Gradient with respect to the output.
    x, w
        As in the forward pass.
    mask : Mask or None
        What the forward pass returned. None: nothing was dropped.
    input_gradient : bool, optional
        Whether that of x is computed, too.

    Returns
    -------
    grad_x : numpy.ndarray, shape of `x`, or None
    grad_w : numpy.ndarray, shape of `w`
        Exactly +0.0 where the mask, or that of every row, drops.
    grad_bias : numpy.ndarray, shape (units_out,)

    Raises
    ------
    TypeError, ValueError
        As for `dropconnect`, and if `grad_y` or `mask` does not fit.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x, w = numpy.ones((2, 3)), numpy.ones((3, 4))
    >>> y, mask = fastdrop.dropconnect(x, w, rate=0.5, rng=0)
    >>> grad_x, grad_w, grad_bias = fastdrop.dropconnect_backward(numpy.ones((2, 4)), x, w, mask)
    >>> grad_x
    array([[4., 2., 4.],
           [4., 2., 4.]])
    >>> grad_w
    array([[4., 4., 0., 0.],
           [4., 0., 0., 0.],
           [0., 0., 4., 4.]])
    """
    x, w, _ = _operands(x, w, None)
    grad_y = float_array(grad_y, "grad_y")
    if grad_y.dtype != x.dtype:
        raise TypeError(f"grad_y must have dtype {x.dtype}, that of x, got {grad_y.dtype}")
    if grad_y.shape != (*x.shape[:-1], w.shape[1]):
        raise ValueError(
            f"grad_y must have shape {(*x.shape[:-1], w.shape[1])}, got {grad_y.shape}"
        )
    if mask is not None:
        if not isinstance(mask, Mask):
            raise TypeError(f"mask must be a fastdrop.Mask or None, got {type(mask).__name__}")
        _check_fits(mask, x, w)
    dtype, x, w, grad_y = x.dtype, working(x), working(w), working(grad_y)
    if mask is not None and mask.ndim == 3:
        grad_x, *others = gradients_of_groups(grad_y, x, w, mask, input_gradient)
    elif input_gradient:
        grad_x, *others = masked_matmul_backward(grad_y, x, w, mask_weight=mask)
    else:
        grad_x, others = None, list(parameter_gradients(grad_y, x, w, mask))
    with numpy.errstate(over="ignore"):
        grad_w, grad_bias = (one.astype(dtype, copy=False) for one in others)
        return None if grad_x is None else grad_x.astype(dtype, copy=False), grad_w, grad_bias


def dropconnect_moments(
    x: ArrayLike,
    w: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    scale_at: ScaleAt = "train",
) -> tuple[Array, Array]:
    """Return mean and variance of the output of `dropconnect` over all masks [1]_.

    With p the `keep_prob`, the paper's ``p * (x @ w)`` and ``p * (1 - p) * (x∘x) @ (w∘w)`` where
    kept weights stay as they are (``scale_at="test"``); both for weights that are divided by p in
    training otherwise.

    Parameters
    ----------
    x, w, rate, keep_prob, bias, scale_at
        As for `dropconnect`. With ``scale_at="train"`` the rate must be below 1.

    Returns
    -------
    mean, variance : numpy.ndarray, dtype of `x`, shape (..., units_out)

    Raises
    ------
    TypeError, ValueError
        As for `dropconnect`.

    References
    ----------
    .. [1] As in `dropconnect`, section 3.2.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x, w = numpy.array([[1.0, 2.0]]), numpy.array([[3.0], [1.0]])
    >>> fastdrop.dropconnect_moments(x, w, rate=0.5)
    (array([[5.]]), array([[13.]]))
    """
    x, w, bias = _operands(x, w, bias)
    keep = keep_probability(rate, keep_prob)
    if not is_one_of(scale_at, ("train", "test")):
        raise ValueError(f'scale_at must be "train" or "test", got {scale_at!r}')
    if scale_at == "train" and keep == 0:
        raise ValueError(f'rate must be less than 1 with scale_at="train", got {1.0 - keep}')
    factor, spread = (1.0, (1 - keep) / keep) if scale_at == "train" else (keep, keep * (1 - keep))
    dtype = x.dtype
    mean = _product(x, w, None, bias, factor)
    x, w = working(x), working(w)
    with numpy.errstate(all="ignore"):
        variance = masked_matmul(x * x, w * w) * x.dtype.type(spread)
        return mean.astype(dtype, copy=False), variance.astype(dtype, copy=False)


def dropconnect_inference(
    x: ArrayLike,
    w: ArrayLike,
    rate: float | None = None,
    *,
    keep_prob: float | None = None,
    bias: ArrayLike | None = None,
    activation: Callable[[Array], Any] | None = None,
    samples: int = 100,
    rng: RandomSource = None,
    scale_at: ScaleAt = "train",
) -> Array:
    """Return the mean of an activation function over masks of weights, as the paper predicts [1]_.

    What an activation function is given is a sum of many independent terms, and nearly normal.
    `samples` times, normal numbers with the mean and variance of `dropconnect_moments` are drawn
    and go through it: two products, however many samples.

    Parameters
    ----------
    x, w, rate, keep_prob, bias, scale_at
        As for `dropconnect_moments`.
    activation : callable, optional
        ``activation(u)`` returns an array of the shape of u, such as `numpy.tanh` or the `forward`
        of an activation layer. None: the identity, whose mean needs no samples.
    samples : int, optional
        At least 1. The error falls with its root.
    rng : optional
        As for `dropout`. Each sample takes one draw.

    Returns
    -------
    numpy.ndarray, dtype of `x`, shape (..., units_out)

    Raises
    ------
    TypeError, ValueError
        As for `dropconnect_moments`, and for what `activation` returns.

    References
    ----------
    .. [1] As in `dropconnect`, section 3.2 and algorithm 2.

    Examples
    --------
    >>> import numpy, fastdrop
    >>> x, w = numpy.ones((1, 100)), numpy.full((100, 1), 0.01)
    >>> y = fastdrop.dropconnect_inference(
    ...     x, w, rate=0.5, activation=numpy.tanh, samples=1000, rng=0
    ... )
    >>> round(y.item(), 2), round(numpy.tanh(x @ w).item(), 2)
    (0.76, 0.76)
    """
    if (samples := integer(samples, "samples")) < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if activation is not None and not callable(activation):
        raise TypeError(f"activation must be callable or None, got {type(activation).__name__}")
    options: dict[str, Any] = {"keep_prob": keep_prob, "bias": bias, "scale_at": scale_at}
    mean, variance = dropconnect_moments(x, w, rate, **options)
    if activation is None:
        return mean
    deviation, stream = numpy.sqrt(variance), as_stream(rng)
    total: Array = numpy.zeros(mean.shape, numpy.promote_types(mean.dtype, numpy.float32))
    for _ in range(samples):
        z = draw_with(stream, _normal, mean.shape)
        y = numpy.asarray(activation(mean + deviation * z.to_array(mean.dtype)))
        if y.shape != mean.shape or y.dtype.kind not in "biuf":
            raise ValueError(
                f"activation must return real numbers of shape {mean.shape}, got {y.dtype} of "
                f"shape {y.shape}"
            )
        total += y
    return numpy.asarray(total / total.dtype.type(samples), mean.dtype)


def _normal(key0: int, key1: int, number: int, shape: Shape) -> Noise:
    return new_noise((key0, key1), number, "normal", shape, 1.0, True)


def _operands(
    x: ArrayLike, w: ArrayLike, bias: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    """x, w and bias, checked."""
    x, w = float_array(x, "x"), float_array(w, "w")
    if x.ndim == 0:
        raise ValueError(f"x must have shape (..., units_in), got {x.shape}")
    if w.dtype != x.dtype:
        raise TypeError(f"w must have dtype {x.dtype}, that of x, got {w.dtype}")
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        raise ValueError(
            f"w must have shape ({x.shape[-1]}, units_out) for x of shape {x.shape}, got {w.shape}"
        )
    if bias is not None:
        bias = float_array(bias, "bias")
        if bias.dtype != x.dtype:
            raise TypeError(f"bias must have dtype {x.dtype}, that of x, got {bias.dtype}")
        if bias.shape != (w.shape[1],):
            raise ValueError(f"bias must have shape ({w.shape[1]},), got {bias.shape}")
    return x, w, bias


def _mask_of(x: Array, w: Array, rows_per_mask: RowsPerMask) -> tuple[Shape, RowsPerMask]:
    """The shape a mask is drawn for, w or as many of it as x has rows, and its rows per mask."""
    if is_one_of(rows_per_mask, ("batch",)):
        return w.shape, 1
    if x.ndim < 2:
        raise ValueError(f"x must have rows where rows_per_mask is {rows_per_mask}, got {x.shape}")
    shape = (x.shape[0], *w.shape)
    mask_plan(shape, (), rows_per_mask)  # an error, if it cannot be
    return shape, rows_per_mask


def _check_fits(mask: Mask, x: Array, w: Array) -> None:
    rows, every = x.shape[0], mask.rows_per_mask
    groups = -(-rows // every) if isinstance(every, int) else 1
    if mask.shape != w.shape and (x.ndim < 2 or mask.shape != (groups, *w.shape)):
        raise ValueError(
            f"mask of shape {mask.shape} does not fit w of shape {w.shape} and x of shape {x.shape}"
        )


def _to(out: Array | None, y: Array, dtype: numpy.dtype[Any]) -> Array:
    """A result of another dtype perhaps, in `out` or as it is."""
    with numpy.errstate(over="ignore"):
        if out is None:
            return y.astype(dtype, copy=False)
        numpy.copyto(out, y, casting="same_kind")
    return out


def _product(
    x: Array, w: Array, mask: Mask | None, bias: Array | None, factor: float = 1.0
) -> Array:
    """``factor * x @ (mask ∘ w) + bias``, of float16 in float32."""
    x, w = working(x), working(w)
    bias = None if bias is None else contiguous(bias, x.dtype)
    if mask is not None and mask.ndim == 3:
        return products_of_groups(x, w, mask, bias)
    if factor == 1:
        return masked_matmul(x, w, mask_weight=mask, bias=bias)
    with numpy.errstate(all="ignore"):
        y: Array = masked_matmul(x, w) * x.dtype.type(factor)
        return y if bias is None else y + bias
